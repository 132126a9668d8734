"""Secrets: where they are, and reading them at the moment they are needed. A value is never kept."""

import os
import stat
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from mmd.config.files import NotReadable, read_regular
from mmd.domain.errors import CredentialError

SECRET_BYTES_MAX = 65536
READABLE_BY_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH
WRITABLE_BY_GROUP = stat.S_IWGRP


class ExposedSecret(CredentialError):
    """The rights of a secret's file are wrong: others can read it, or we cannot. Exit status 77."""


class Source(StrEnum):
    CREDENTIAL = "credential"
    FILE = "file"
    ENV = "env"


class Secret(msgspec.Struct, frozen=True):
    """Where a secret is. It holds no value, so neither repr, pickle nor a traceback can show one."""

    source: Source
    name: str

    def __str__(self) -> str:
        return f"{{{self.source}: {self.name}}}"

    def reveal(self, environ: Mapping[str, str] | None = None) -> str:
        """The value, read now; one trailing line end is dropped.

        Raises ExposedSecret for wrong file rights, CredentialError where it is missing or unusable.
        """
        environment = os.environ if environ is None else environ
        if self.source is Source.ENV:
            value = environment.get(self.name, "")
            if not value:
                raise CredentialError(f"the environment variable {self.name} is not set")
            return value
        path = self.path(environment)
        if path is None:
            raise CredentialError(
                f"no systemd credentials here ($CREDENTIALS_DIRECTORY is not set), so {self} cannot be read"
            )
        return _read(path, check_rights=self.source is Source.FILE)

    def path(self, environ: Mapping[str, str]) -> Path | None:
        """The file that holds it; None for a variable, and for a credential outside systemd."""
        if self.source is Source.FILE:
            return Path(self.name)
        directory = environ.get("CREDENTIALS_DIRECTORY", "")
        return Path(directory) / self.name if self.source is Source.CREDENTIAL and directory else None


def _read(path: Path, *, check_rights: bool) -> str:
    try:
        content, mode = read_regular(path, SECRET_BYTES_MAX)
    except PermissionError:
        raise ExposedSecret(f"{path}: this user may not read it") from None
    except NotReadable as error:
        raise CredentialError(f"{path}: {error}") from None
    if check_rights:
        _check_rights(path, mode)
    try:
        value = content.decode("utf-8")
    except UnicodeDecodeError:
        raise CredentialError(f"{path}: is not UTF-8 text") from None
    value = value.removesuffix("\n").removesuffix("\r")
    if not value.strip():
        raise CredentialError(f"{path}: is empty")
    if "\n" in value:
        raise CredentialError(f"{path}: has more than one line; a client id or secret has one")
    return value


def _check_rights(path: Path, mode: int) -> None:
    rights = f"{stat.S_IMODE(mode):04o}"
    if mode & READABLE_BY_OTHERS:
        raise ExposedSecret(f"{path}: has mode {rights}, so others can read it; run: chmod o-rwx {path}")
    if mode & WRITABLE_BY_GROUP:
        raise ExposedSecret(f"{path}: has mode {rights}, so its group can change it; run: chmod g-w {path}")
