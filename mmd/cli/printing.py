"""Printing to somebody who may leave."""

import os
import sys


def show(text: str) -> None:
    """Print; a reader that has left, as `head` does, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
