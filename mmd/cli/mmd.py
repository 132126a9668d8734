"""The program `mmd`: run, check, show-config, init, sandbox, demo, reap."""

import argparse
import sys
from typing import NoReturn

import mmd
from mmd.cli import config_commands, demo, journal, reap, replay, run, sandbox, verify
from mmd.shell.listing import list_instruments

EXIT_USAGE = 64


class Parser(argparse.ArgumentParser):
    """Wrong usage ends with 64 (EX_USAGE), as docs/operations.md promises."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    main: argparse.ArgumentParser = Parser(prog="mmd", description="The market-maker daemon that sysadmins trust.")
    main.add_argument("--version", action="version", version=f"mmd {mmd.__version__}")
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run.add_parser(commands)
    config_commands.add_parsers(commands, list_instruments)
    sandbox.add_parser(commands)
    demo.add_parser(commands)
    journal.add_parser(commands)
    reap.add_parser(commands)
    replay.add_parser(commands)
    verify.add_parser(commands)
    return main


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    status: int = args.func(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
