"""Where the files are: the configuration, the state directory, the control socket."""

from collections.abc import Mapping
from pathlib import Path

CONFIG_FILE = "mmd.yaml"
CONFIG_DIRECTORY = "/etc/mmd"
STATE_DIRECTORY = "/var/lib/mmd"
RUNTIME_DIRECTORY = "/run/mmd"
SOCKET_NAME = "mmd.sock"


def config_path(argument: str | None, environ: Mapping[str, str]) -> Path:
    """`--config`, else mmd.yaml in $CONFIGURATION_DIRECTORY, else in /etc/mmd."""
    return Path(argument) if argument else _first(environ, "CONFIGURATION_DIRECTORY", CONFIG_DIRECTORY) / CONFIG_FILE


def state_directory(argument: str | None, configured: str | None, environ: Mapping[str, str]) -> Path:
    """`--state-dir`, else service.state_dir, else $STATE_DIRECTORY, else /var/lib/mmd."""
    chosen = argument or configured
    return Path(chosen) if chosen else _first(environ, "STATE_DIRECTORY", STATE_DIRECTORY)


def socket_path(argument: str | None, configured: str | None, environ: Mapping[str, str]) -> Path:
    """`--socket`, else service.mmd.socket, else mmd.sock in $RUNTIME_DIRECTORY, else in /run/mmd."""
    chosen = argument or configured
    return Path(chosen) if chosen else _first(environ, "RUNTIME_DIRECTORY", RUNTIME_DIRECTORY) / SOCKET_NAME


def _first(environ: Mapping[str, str], name: str, default: str) -> Path:
    """systemd separates several directories by colons; the first is ours."""
    return Path(environ.get(name, "").split(":")[0] or default)
