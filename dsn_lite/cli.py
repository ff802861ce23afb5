"""`dsn-lite`: the command line. One module of `dsn_lite.commands` a command, imported without torch."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from dsn_lite import __version__, commands
from dsn_lite.commands._files import complain
from dsn_lite.errors import InputError

_EPILOG = """\
examples:
  dsn-lite enhance noisy.wav -o out/                 make a recording clean
  dsn-lite enhance recordings/ -o out/ --gates gates.png --report report.json
  dsn-lite models                                    which networks there are
  dsn-lite COMMAND --help                            what a command can do
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser with all its commands."""
    parser = _Parser(
        prog="dsn-lite",
        description="Speech enhancement by a network that decides, frame by frame, how much of itself to use.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dsn-lite {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in pkgutil.iter_modules(commands.__path__):
        if module.name[0] != "_":  # what several commands share
            importlib.import_module(f"{commands.__name__}.{module.name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0; 2 where the input is at fault; 130 where the user interrupted; 141 where the reader of a pipe left.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what the terminal cannot show
    args = make_parser().parse_args(argv)
    try:
        return args.run(args)
    except InputError as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        print("dsn-lite: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, as in `dsn-lite macs | head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as if the signal had ended it
    except OSError as error:  # no fault of this program: a file or a disk that fails
        named = f"{error.filename}: " if error.filename else ""
        line = InputError(f"{named}{error.strerror or error}; mend that and run again")
        complain(line)
        return 2


if __name__ == "__main__":
    sys.exit(main())
