"""The arguments that several commands take, and a parser that reports a mistake in one line."""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn


class Mistake(Exception):
    """What the user got wrong, in one line; the command ends with status 2."""


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line; ``fill`` adds its arguments once they are needed."""

    def __init__(self, *args: Any, fill: Callable[["Parser"], None] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fill = fill

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, after the parser has got its arguments."""
        # A command's own parser is called only when that command was given, so only its module is imported.
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Write the mistake and where to read more, and exit with status 2."""
        # In one line; argparse would print the whole usage before it.
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        sys.exit(2)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, which every command has."""
    parser.add_argument("--config", metavar="FILE", help="configuration; else $IMAGES_PROXY_CONFIG, else ./config.toml")


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Add what simulates the providers."""
    parser.add_argument("--demo", action="store_true", help="simulate all providers: no key and no network needed")
    parser.add_argument("--demo-speed", type=_speed, default=1.0, metavar="X", help="divide simulated waiting by X")


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no positive number")
    return speed
