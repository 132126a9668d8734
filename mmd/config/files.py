"""Reading a file that should be a small regular one, whatever stands in its place."""

import os
import stat
from pathlib import Path


class NotReadable(Exception):
    """Why the file cannot be used, in words that go after its name."""


def read_regular(path: Path, bytes_max: int) -> tuple[bytes, int]:
    """Content and mode of what was really opened. Raises NotReadable, PermissionError.

    Opened without blocking, so that a pipe in the file's place cannot hang us.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NotReadable(f"cannot be read: {reason}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise NotReadable("is a directory")
        if not stat.S_ISREG(mode):
            raise NotReadable("is not a regular file")
        content = b""
        while len(content) <= bytes_max and (piece := os.read(descriptor, bytes_max + 1 - len(content))):
            content += piece
    except OSError as error:
        raise NotReadable(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(content) > bytes_max:
        raise NotReadable(f"is larger than {bytes_max // 1024} KiB")
    return content, mode
