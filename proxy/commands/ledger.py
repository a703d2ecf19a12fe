"""``ledger``: what was reserved, spent and released, entry by entry; and what a person decides about it."""

import argparse
from typing import Final

from proxy.accounts import reports
from proxy.accounts.accounts import COMMAND_LINE
from proxy.accounts.changes import KeyAdmin
from proxy.accounts.users import user_digest
from proxy.commands.arguments import Mistake, Parser, add_config
from proxy.commands.states import now_ms, opened, who, write_json, write_rows
from proxy.config import Configuration
from proxy.state.operations import State
from proxy.state.records import JobId

_ENTRY: Final[tuple[str, ...]] = (
    "at",
    "kind",
    "job",
    "key",
    "provider",
    "model",
    "reserved",
    "spent",
    "unknown",
    "price_source",
    "who",
)
_UNKNOWN: Final[tuple[str, ...]] = ("at", "job", "key", "provider", "model", "amount", "price_source")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ledger``."""
    parser.set_defaults(run=run, action=None)
    _add_common(parser)
    parser.add_argument("--unknown", action="store_true", help="only jobs whose outcome nobody knows")
    parser.add_argument("--key", metavar="NAME", help="only what this key has used")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="how many entries, the newest first")
    actions = parser.add_subparsers(dest="action", parser_class=Parser, metavar="ACTION")
    resolve = actions.add_parser("resolve", help="say what became of a job whose outcome nobody knows")
    resolve.add_argument("job", metavar="JOB", help="as 'ledger --unknown' names it")
    resolve.add_argument("outcome", choices=("paid", "free"))
    forget = actions.add_parser("forget", help="remove an end user's name from all rows")
    forget.add_argument("user", metavar="USER", help="as callers send it, or as 'usage --by user' shows it")
    for each in (resolve, forget):
        _add_common(each)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="for scripts")


async def run(options: argparse.Namespace, configuration: Configuration) -> int:
    """Print entries, or settle or forget something. Raises Mistake, StateUnavailable."""
    async with opened(configuration) as state:
        if options.action == "resolve":
            await _resolve(options, state)
        elif options.action == "forget":
            await _forget(options, state)
        else:
            await _list(options, state, configuration)
    return 0


async def _list(options: argparse.Namespace, state: State, configuration: Configuration) -> None:
    key = None if options.key is None else await _key_id(options.key, state, configuration)
    if options.unknown:
        rows = await reports.unknown_body(state, key)
    else:
        rows = [reports.entry_body(entry) for entry in await state.ledger(limit=max(1, options.limit), key=key)]
    names = _UNKNOWN if options.unknown else _ENTRY
    if options.json:
        write_json({"object": "list", "data": rows})
    else:
        write_rows(names, [[row[name] for name in names] for row in rows])


async def _key_id(name: str, state: State, configuration: Configuration) -> str:
    for digest, given in configuration.given.callers.items():
        if name == (given or digest.hex()[:16]):
            return digest.hex()[:16]
    if name == COMMAND_LINE.name:
        return COMMAND_LINE.id
    row, _ = await KeyAdmin(state, "", now_ms, lambda _: False).find(name)
    return row.id


async def _resolve(options: argparse.Namespace, state: State) -> None:
    try:
        job = JobId.parse(options.job)
    except ValueError:
        raise Mistake(f"'{options.job}' names no job; 'images-proxy ledger --unknown' lists them") from None
    if not await state.resolve(job, options.outcome, who()):
        raise Mistake(f"there is no job {job} whose outcome is unknown")
    if options.json:
        write_json({"job": str(job), "outcome": options.outcome})


async def _forget(options: argparse.Namespace, state: State) -> None:
    digest = user_digest(await state.fingerprint_key(), options.user)
    entries = sum([await state.forget_user(name) for name in (options.user, digest)])
    if options.json:
        write_json({"user": options.user, "entries": entries})
    elif not entries:
        raise Mistake("no entry has this end user")
