"""Errors that say whose fault it is, and what may already have happened."""


class MmdError(Exception):
    """Root of everything this program raises on purpose."""


class ConfigError(MmdError):
    """The operator's: a file is wrong; nothing was applied. `lines` holds one finding each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class CredentialError(MmdError):
    """The operator's: a secret is missing or its file is readable by others; exit status 77 or 78."""


class OffGrid(MmdError):
    """A price or an amount does not lie on the instrument's grid."""


class ExchangeRefused(MmdError):
    """A definite no: the request had no effect."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


class ExchangeMalformed(MmdError):
    """The peer broke the protocol: a known field has the wrong shape."""


class ExchangeAmbiguous(MmdError):
    """The request may have had its effect: keep it in flight and ask."""


class LinkLost(MmdError):
    """The connection is gone; every request in flight on it is ambiguous."""
