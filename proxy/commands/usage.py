"""``usage``: what was used since a day: pictures, and dollars spent, reserved and unknown."""

import argparse

from proxy.accounts import reports
from proxy.commands.arguments import Mistake, add_config
from proxy.commands.states import now_ms, opened, write_csv, write_json, write_rows
from proxy.config import Configuration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``usage``."""
    parser.set_defaults(run=run)
    add_config(parser)
    parser.add_argument("--by", choices=reports.BY, default="key", help="one row for each (default: key)")
    parser.add_argument("--since", metavar="7d", help="so far back, or a date (UTC); default: this month")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="for spreadsheets")
    form.add_argument("--json", action="store_true", help="for scripts")


async def run(options: argparse.Namespace, configuration: Configuration) -> int:
    """Print what was used. Raises Mistake, StateUnavailable."""
    try:
        since = reports.since_day(options.since, now_ms())
    except ValueError as error:
        raise Mistake(f"--since: {error}") from None
    async with opened(configuration) as state:
        body = reports.usage_body(await state.usage(options.by, since), options.by, since)
    if options.json:
        write_json(body)
    elif options.csv:
        write_csv(body["rows"])
    else:
        names = (options.by, *body["total"])
        write_rows(
            names, [*([row[name] for name in names] for row in body["rows"]), ["total", *body["total"].values()]]
        )
    return 0
