"""What the commands share that read or change the state beside a service that runs."""

import csv
import getpass
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from proxy.clock import Clock
from proxy.commands.arguments import Mistake
from proxy.config import Configuration
from proxy.errors import Failure
from proxy.state.operations import State
from proxy.state.settings import open_state

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@asynccontextmanager
async def opened(configuration: Configuration) -> AsyncIterator[State]:
    """Open the state, and report a refusal as the user's mistake. Raises Mistake, StateUnavailable."""
    if configuration.state_file is None and not configuration.database_url:
        raise Mistake("state.path is ':memory:', which no other process can see; name a file")
    state = await open_state(
        configuration.settings.state,
        configuration.state_file,
        Clock(),
        serving=False,
        database_url=configuration.database_url,
    )
    try:
        yield state
    except Failure as failure:
        raise Mistake(failure.message) from None
    finally:
        await state.close()


def now_ms() -> int:
    """Return Unix milliseconds."""
    return int(Clock().wall() * 1000)


def who() -> str:
    """Return who gives a command, as it is kept with a change."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):  # a container may run as a number without a name
        return "command line"


def write_json(value: Any) -> None:
    """Write JSON to standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def write_rows(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table to standard output: in columns on a terminal, between tabs in a pipe."""
    cells = [list(map(_cell, row)) for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in cells)
        return
    widths = [max(len(each) for each in column) for column in zip(names, *cells, strict=True)]
    for row in (names, *cells):
        line = "  ".join(each.ljust(width) for each, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def write_csv(rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows that have the same keys as CSV to standard output."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows([list(rows[0]), *([csv_cell(value) for value in row.values()] for row in rows)] if rows else [])


def csv_cell(value: object) -> str:
    """Return a value as text that no spreadsheet takes for a formula."""
    # https://owasp.org/www-community/attacks/CSV_Injection
    text = _cell(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
