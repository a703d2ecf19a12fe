"""``keys``: who may call, and what each key may spend. Works beside a service that runs, which notices within 5 s."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from proxy.accounts import reports
from proxy.accounts.amounts import read_moment, read_seconds, shown_moment
from proxy.accounts.changes import Budgets, KeyAdmin, models_text
from proxy.accounts.keys import COUNT_BY
from proxy.commands.arguments import Mistake, Parser, add_config
from proxy.commands.states import now_ms, opened, who, write_json, write_rows
from proxy.config import Configuration
from proxy.state.money import KeyRow, Limit, Unit
from proxy.state.operations import State
from proxy.state.records import Account

_NONE: Final = "none"
_COLUMNS: Final = ("name", "tail", "owner", "budget", "pictures", "models", "expires", "disabled")
_Work = Callable[[argparse.Namespace, State, KeyAdmin], Awaitable[None]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``keys``."""
    actions = parser.add_subparsers(dest="action", required=True, parser_class=Parser, metavar="ACTION")
    create = _action(actions, "create", _create, "make a key; its secret is shown once")
    _add_terms(create)
    listing = actions.add_parser("list", help="list all keys")
    listing.set_defaults(run=run, work=_list)
    _add_common(listing)
    _action(actions, "show", _show, "show one key, what it has used, and what was done to it")
    update = _action(actions, "update", _update, "change a key; what is not named stays")
    _add_terms(update)
    update.add_argument("--rename", metavar="NAME", help="another name; what was spent stays under the old one")
    rotate = _action(actions, "rotate", _rotate, "give a key a new secret")
    rotate.add_argument(
        "--grace", default="0s", metavar="24h", help="how long the old secret still works (default: 0s)"
    )
    for name, disabled in (("disable", True), ("enable", False)):
        _action(actions, name, _switch, f"{name} a key").set_defaults(disabled=disabled)
    _action(actions, "delete", _delete, "delete a key; what it has spent stays in the ledger")
    raising = _action(actions, "raise", _raise, "let a key spend more until a date")
    raising.add_argument("amount", metavar="AMOUNT", help="how much more: dollars, or with --pictures a number")
    raising.add_argument("--until", required=True, metavar="DATE", help="a date (UTC) such as 2027-01-31, or 7d")
    raising.add_argument("--pictures", action="store_true", help="raise the limits in pictures")


def _action(actions: Any, name: str, work: _Work, does: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=does, description=does)
    parser.set_defaults(run=run, work=work)
    parser.add_argument("name", metavar="NAME")
    _add_common(parser)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="for scripts")


def _add_terms(parser: argparse.ArgumentParser) -> None:
    again = "may be given again for another period"
    parser.add_argument(
        "--budget", action="append", metavar="5/month", help=f"dollars a day, week, month or in all; {again}"
    )
    parser.add_argument("--pictures", action="append", metavar="100/day", help=f"how many pictures; {again}")
    parser.add_argument("--per-minute", type=int, metavar="N", help="requests for pictures a minute; 0: any number")
    parser.add_argument(
        "--at-once", type=int, metavar="N", help="requests whose pictures are being made; 0: any number"
    )
    parser.add_argument("--models", metavar="'dall-e-*,…'", help="models it may use, with wildcards; none: all of them")
    parser.add_argument("--expires", metavar="90d", help="after how long, or on which date (UTC); none: never")
    parser.add_argument("--owner", metavar="NAME", help="whose limits ([limits.owners.NAME]) hold as well")
    parser.add_argument("--count-by", choices=(*COUNT_BY, _NONE), help="tell the end users behind it apart by this")
    parser.add_argument("--per-user-budget", action="append", metavar="1/month", help="dollars for each end user")
    parser.add_argument("--per-user-pictures", action="append", metavar="20/day", help="pictures for each end user")
    parser.add_argument("--per-user-per-minute", type=int, metavar="N", help="requests a minute for each end user")
    parser.add_argument("--per-user-at-once", type=int, metavar="N", help="requests at once for each end user")
    show = "keep end users by name instead of as digests"
    parser.add_argument("--show-users", action=argparse.BooleanOptionalAction, default=None, help=show)


async def run(options: argparse.Namespace, configuration: Configuration) -> int:
    """Do what is asked to the keys of the state. Raises Mistake, StateUnavailable."""
    names = frozenset(configuration.given.callers.values())
    async with opened(configuration) as state:
        await options.work(options, state, KeyAdmin(state, who(), now_ms, names.__contains__))
    return 0


# --- actions ----------------------------------------------------------------------------------------------------------


async def _create(options: argparse.Namespace, _state: State, admin: KeyAdmin) -> None:
    row, limits, secret = await admin.create(options.name, _budgets(options), **_fields(options))
    if options.json:
        write_json({"name": row.name, "key": secret, **reports.row_body(row, limits)})
        return
    sys.stdout.write(f"{secret}\n")
    sys.stderr.write(f"The key of '{row.name}'. It is not kept and can't be shown again.\n")


async def _list(options: argparse.Namespace, state: State, _admin: KeyAdmin) -> None:
    kept = await state.keys()
    bodies = [reports.row_body(row, kept.limits) for row in kept.keys]
    if options.json:
        write_json({"keys": bodies})
    else:
        write_rows(_COLUMNS, [[body[name] for name in _COLUMNS] for body in bodies])


async def _show(options: argparse.Namespace, state: State, admin: KeyAdmin) -> None:
    row, limits = await admin.find(options.name)
    standing = [
        reports.standing_body(each, now_ms()) for each in await state.standing(Account(row.id, row.name, row.owner))
    ]
    changes = reports.changes_body(await state.key_changes(row.id))
    body = {**reports.row_body(row, limits), "limits": standing, "changes": changes}
    if options.json:
        write_json(body)
        return
    figures = ("object", "limits", "changes")
    write_rows(("", ""), [(name, value) for name, value in body.items() if name not in figures and value])
    for each in standing:
        again = f", begins anew {each['resets']}" if each["resets"] else ""
        sys.stdout.write(
            f"limit\t{each['scope']}, {each['limit']} {each['unit']} ({each['period']}): {each['spent']} spent, "
            f"{each['reserved']} reserved, {each['unknown']} unknown, {each['remaining']} left{again}\n"
        )
    sys.stdout.writelines(f"change\t{each['at']}\t{each['who']}\t{each['change']}\n" for each in changes)


async def _update(options: argparse.Namespace, _state: State, admin: KeyAdmin) -> None:
    row, limits = await admin.find(options.name)
    fields, budgets = _fields(options), _budgets(options)
    if options.rename is not None:
        fields["name"] = options.rename
    told = {name: value for name, value in vars(options).items() if name in _TOLD and value is not None}
    if not told:
        raise Mistake("nothing to change was named")
    row, limits = await admin.update(row, limits, budgets, told, **fields)
    _report(options, row, limits)


async def _rotate(options: argparse.Namespace, _state: State, admin: KeyAdmin) -> None:
    row, limits = await admin.find(options.name)
    row, secret = await admin.rotate(row, _read(read_seconds, "--grace", options.grace) * 1000)
    if options.json:
        write_json({"name": row.name, "key": secret, **reports.row_body(row, limits)})
        return
    sys.stdout.write(f"{secret}\n")
    until = f" The old one works until {shown_moment(row.old_until)}." if row.old_digest else ""
    sys.stderr.write(f"The new key of '{row.name}'. It can't be shown again.{until}\n")


async def _switch(options: argparse.Namespace, _state: State, admin: KeyAdmin) -> None:
    row, limits = await admin.find(options.name)
    _report(options, await admin.disable(row, disabled=options.disabled), limits)


async def _delete(options: argparse.Namespace, _state: State, admin: KeyAdmin) -> None:
    row, _ = await admin.find(options.name)
    await admin.delete(row)
    if options.json:
        write_json({"name": row.name, "deleted": True})


async def _raise(options: argparse.Namespace, _state: State, admin: KeyAdmin) -> None:
    row, limits = await admin.find(options.name)
    until = _read(lambda text: read_moment(text, now_ms()), "--until", options.until)
    unit: Unit = "pictures" if options.pictures else "dollars"
    _report(options, row, await admin.raise_limits(row, limits, options.amount, unit, until))


def _report(options: argparse.Namespace, row: KeyRow, limits: Sequence[Limit]) -> None:
    if options.json:
        write_json(reports.row_body(row, limits))


# --- what is asked for ------------------------------------------------------------------------------------------------

_NUMBERS: Final = {
    "per_minute": "per_minute",
    "at_once": "at_once",
    "per_user_per_minute": "user_per_minute",
    "per_user_at_once": "user_at_once",
}
"""Options, and the fields of a key's row that they set."""
_TOLD: Final = frozenset(
    {
        *_NUMBERS,
        "budget",
        "pictures",
        "per_user_budget",
        "per_user_pictures",
        "models",
        "expires",
        "owner",
        "count_by",
        "show_users",
        "rename",
    }
)


def _budgets(options: argparse.Namespace) -> Budgets:
    def given(texts: list[str] | None) -> list[str] | None:
        return [] if texts == [_NONE] else texts

    return Budgets(
        given(options.budget),
        given(options.pictures),
        given(options.per_user_budget),
        given(options.per_user_pictures),
    )


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of a key's row that were named. Raises Mistake."""
    numbers = {name: getattr(options, option) for option, name in _NUMBERS.items()}
    fields: dict[str, Any] = {name: number for name, number in numbers.items() if number is not None}
    if options.owner is not None:
        fields["owner"] = "" if options.owner == _NONE else options.owner
    if options.models is not None:
        names = [] if options.models == _NONE else [name.strip() for name in options.models.split(",")]
        fields["models"] = models_text([name for name in names if name])
    if options.expires is not None:
        never = options.expires == _NONE
        fields["expires"] = (
            None if never else _read(lambda text: read_moment(text, now_ms()), "--expires", options.expires)
        )
    if options.count_by is not None:
        fields["count_by"] = "" if options.count_by == _NONE else options.count_by
    if options.show_users is not None:
        fields["show_users"] = int(options.show_users)
    return fields


def _read(read: Callable[[str], int], option: str, text: str) -> int:
    try:
        return read(text)
    except ValueError as error:
        raise Mistake(f"{option}: {error}") from None
