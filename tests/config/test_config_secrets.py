"""Secrets: read when needed, shown never, refused when others could read them too."""

import pickle
from pathlib import Path

import pytest

from mmd.config.secrets import ExposedSecret, Secret, Source
from mmd.domain.errors import CredentialError


def write(path: Path, content: bytes = b"hunter2\n", mode: int = 0o600) -> Secret:
    path.write_bytes(content)
    path.chmod(mode)
    return Secret(Source.FILE, str(path))


def test_the_three_sources(tmp_path: Path) -> None:
    write(tmp_path / "key")
    assert Secret(Source.FILE, str(tmp_path / "key")).reveal({}) == "hunter2"
    assert Secret(Source.ENV, "KEY").reveal({"KEY": "hunter2"}) == "hunter2"
    assert Secret(Source.CREDENTIAL, "key").reveal({"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "hunter2"


def test_it_follows_a_rotation_without_a_restart(tmp_path: Path) -> None:
    secret = write(tmp_path / "key", b"old")
    assert secret.reveal({}) == "old"
    write(tmp_path / "key", b"new\r\n")
    assert secret.reveal({}) == "new"


def test_nothing_shows_the_value(tmp_path: Path) -> None:
    secret = write(tmp_path / "key")
    assert secret.reveal({}) == "hunter2"
    assert "hunter2" not in repr(secret) + str(secret) + f"{secret}"
    assert b"hunter2" not in pickle.dumps(secret)
    assert pickle.loads(pickle.dumps(secret)) == secret


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601, 0o620, 0o666])
def test_a_file_that_others_reach_is_refused(tmp_path: Path, mode: int) -> None:
    secret = write(tmp_path / "key", mode=mode)
    with pytest.raises(ExposedSecret, match=f"has mode {mode:04o}.*chmod") as caught:
        secret.reveal({})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
def test_a_file_of_owner_and_group_is_fine(tmp_path: Path, mode: int) -> None:
    assert write(tmp_path / "key", mode=mode).reveal({}) == "hunter2"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"-----BEGIN\nPRIVATE KEY", "more than one line"),
        (b"x" * 70_000, "is larger"),
    ],
)
def test_unusable_content(tmp_path: Path, content: bytes, text: str) -> None:
    with pytest.raises(CredentialError, match=text):
        write(tmp_path / "key", content).reveal({})


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (Secret(Source.FILE, "/nowhere/key"), "No such file"),
        (Secret(Source.FILE, "/"), "is a directory"),
        (Secret(Source.FILE, "/a\0b"), "null (byte|character)"),
        (Secret(Source.ENV, "NOT_SET"), "NOT_SET is not set"),
        (Secret(Source.CREDENTIAL, "key"), "CREDENTIALS_DIRECTORY"),
    ],
)
def test_missing(secret: Secret, text: str) -> None:
    with pytest.raises(CredentialError, match=text):
        secret.reveal({})
