"""For every room's tests."""

import signal


def pytest_configure() -> None:
    """A script that starts the tests with `&` has them ignore Ctrl-C, and so would every daemon they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
