"""What was used, as JSON values: the same for the command line, the routes and the page.

Dollars are decimal text, since sums of floats are off; moments and days are UTC.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, get_args

from proxy.accounts.amounts import read_moment, shown_amount, shown_day, shown_moment
from proxy.accounts.keys import Key, models_of
from proxy.dollars import decimal_text
from proxy.state.money import Balance, Entry, KeyChange, KeyRow, Limit, Unit
from proxy.state.operations import By, State
from proxy.state.outcomes import Standing, Usage
from proxy.state.periods import day_of, period_start
from proxy.state.records import Account, JobId, JobRow

BY: Final[tuple[By, ...]] = get_args(By)
_LAST: Final = 100


def _sums(balance: Balance) -> dict[str, Any]:
    return {
        "pictures": balance.spent_pictures,
        "spent": decimal_text(balance.spent),
        "reserved": decimal_text(balance.reserved),
        "unknown": decimal_text(balance.unknown),
        "reserved_pictures": balance.reserved_pictures,
        "unknown_pictures": balance.unknown_pictures,
    }


def _total(balances: Iterable[Balance]) -> Balance:
    return Balance(*(sum(figures) for figures in zip(*(Balance(), *balances), strict=True)))


def _named(name: str, by: By) -> str:
    return shown_date(int(name)) if by == "day" else name


def shown_date(day: int) -> str:
    """Return a day as ``2026-11-21``. ``day``: UTC days since 1970."""
    return str(shown_day(day))[:10]


def since_day(text: str | None, now: int) -> int:
    """Return the UTC day from which on is counted: ``7d`` back or a date; this month's first for None.

    Raises ValueError.
    """
    if text is None:
        return period_start("month", day_of(now))
    at = read_moment(text, now)
    # "7d" is read as a moment seven days ahead; here it means back.
    return day_of(2 * now - at) if at > now else day_of(at)


def usage_body(rows: Sequence[Usage], by: By, since_day: int, split: By | None = None) -> dict[str, Any]:
    """Return what was used, by name; ``split``: and by a second one."""
    return {
        "object": "usage",
        "by": by,
        **({"split": split} if split else {}),
        "since": shown_date(since_day),
        "rows": [
            {by: _named(row.name, by), **({split: _named(row.split, split)} if split else {}), **_sums(row.balance)}
            for row in rows
        ],
        "total": _sums(_total(row.balance for row in rows)),
    }


# --- limits -----------------------------------------------------------------------------------------------------------


def standing_body(standing: Standing, now: int) -> dict[str, Any]:
    """Return one limit with what is used of it. ``now``: Unix milliseconds."""
    limit, balance, unit = standing.limit, standing.balance, standing.limit.unit
    figures = balance[:3] if unit == "dollars" else balance[3:]
    reserved, spent, unknown = (shown_amount(figure, unit) for figure in figures)
    return {
        **limit_body(limit, now),
        "spent": spent,
        "reserved": reserved,
        "unknown": unknown,
        "remaining": shown_amount(standing.remaining, unit),
        "resets": shown_day(standing.resets),
    }


def limit_body(limit: Limit, now: int) -> dict[str, Any]:
    """Return one limit as it holds at a moment; a raise that is over isn't told."""
    kind = limit.scope.partition(":")[0]
    body: dict[str, Any] = {
        "scope": {"all": "service", "users": "user"}.get(kind, kind),
        **({"owner": limit.scope.partition(":")[2]} if kind == "owner" else {}),
        "unit": limit.unit,
        "period": limit.period,
        "limit": shown_amount(limit.allowed(now), limit.unit),
    }
    if limit.extra and now < limit.extra_until:
        body["raised_by"] = shown_amount(limit.extra, limit.unit)
        body["raised_until"] = shown_moment(limit.extra_until)
    return body


def written_limits(limits: Sequence[Limit], scope: str, unit: Unit) -> list[str]:
    """Return the limits of a scope as people write them: ``5/month``."""
    return [
        f"{shown_amount(limit.amount, unit)}/{limit.period}"
        for limit in limits
        if (limit.scope, limit.unit) == (scope, unit)
    ]


# --- keys -------------------------------------------------------------------------------------------------------------


def row_body(row: KeyRow, limits: Sequence[Limit]) -> dict[str, Any]:
    """Return a key of the state, without its secret and its digest."""
    own, users = f"key:{row.id}", f"users:{row.id}"
    return {
        "object": "key",
        "name": row.name,
        "id": row.id,
        "tail": row.tail,
        "owner": row.owner,
        "created": shown_moment(row.created),
        "expires": shown_moment(row.expires),
        "disabled": row.disabled is not None,
        "models": list(models_of(row)),
        "per_minute": row.per_minute,
        "at_once": row.at_once,
        "count_by": row.count_by or None,
        "show_users": bool(row.show_users),
        "budget": written_limits(limits, own, "dollars"),
        "pictures": written_limits(limits, own, "pictures"),
        "per_user_per_minute": row.user_per_minute,
        "per_user_at_once": row.user_at_once,
        "per_user_budget": written_limits(limits, users, "dollars"),
        "per_user_pictures": written_limits(limits, users, "pictures"),
        "old_until": shown_moment(row.old_until) if row.old_digest is not None else None,
    }


def changes_body(changes: Sequence[KeyChange]) -> list[dict[str, Any]]:
    """Return what was done to a key, the oldest first."""
    return [{"at": shown_moment(each.at), "who": each.who, "change": each.change} for each in changes]


async def own_body(state: State, key: Key, now: int) -> dict[str, Any]:
    """Return what a key may know of itself. Raises operations.StateUnavailable."""
    standing = await state.standing(Account(key.id, key.name, key.owner))
    month = period_start("month", day_of(now))
    used = _total(row.balance for row in await state.usage("key", month, key.id))
    dollars = [each for each in standing if each.limit.unit == "dollars"]
    tightest = min(dollars, key=lambda each: each.remaining, default=None)
    return {
        "object": "key",
        "name": key.name,
        "owner": key.owner,
        "expires": shown_moment(key.expires),
        "models": list(key.models),
        "per_minute": key.per_minute,
        "at_once": key.at_once,
        "count_by": key.count_by or None,
        "since": shown_date(month),
        **_sums(used),
        "remaining": None if tightest is None else decimal_text(tightest.remaining),
        "resets": None if tightest is None else shown_day(tightest.resets),
        "limits": [standing_body(each, now) for each in standing],
        "per_user": [limit_body(each, now) for each in key.limits if each.scope.startswith("users:")],
    }


# --- the ledger -------------------------------------------------------------------------------------------------------


def entry_body(entry: Entry, *, whole: bool = True) -> dict[str, Any]:
    """Return one entry: what it changed. ``whole`` false: without the place from which a person has settled it."""
    return {
        "object": "ledger.entry",
        "id": entry.id,
        "at": shown_moment(entry.at),
        "kind": entry.kind,
        "job": str(JobId(entry.generation, entry.number)) if entry.generation else None,
        **_about(entry.key_name, entry.owner, entry.end_user, entry.provider, entry.model),
        "day": shown_date(entry.day),
        "reserved": decimal_text(entry.reserved),
        "spent": decimal_text(entry.spent),
        "unknown": decimal_text(entry.unknown),
        "pictures": entry.spent_pictures,
        "price_source": entry.price_source,
        "who": entry.who if whole else entry.who.partition(" (")[0],
    }


def _about(key: str, owner: str, user: str, provider: str, model: str) -> dict[str, str]:
    return {"key": key, "owner": owner, "user": user, "provider": provider, "model": model}


def jobs_of(entries: Iterable[Entry], limit: int = _LAST) -> list[dict[str, Any]]:
    """Return the jobs that entries, the newest first, are about: each as its latest entry left it."""
    found: dict[JobId, dict[str, Any]] = {}
    for entry in entries:
        job = JobId(entry.generation, entry.number)
        if not entry.generation or job in found:
            continue
        if len(found) == limit:
            break
        outcome, amount = _left(entry)
        found[job] = {
            "object": "ledger.job",
            "job": str(job),
            "at": shown_moment(entry.at),
            "outcome": outcome,
            "amount": decimal_text(amount),
            **_about(entry.key_name, entry.owner, entry.end_user, entry.provider, entry.model),
            "price_source": entry.price_source,
        }
    return list(found.values())


def _left(entry: Entry) -> tuple[str, int]:
    """Return where a job's money lies after an entry, and how much it is."""
    places = (
        ("reserved", entry.reserved, entry.reserved_pictures),
        ("spent", entry.spent, entry.spent_pictures),
        ("unknown", entry.unknown, entry.unknown_pictures),
    )
    # An entry that only reserves more for the same picture counts no picture.
    kind_of = entry.kind == "reserve"
    return next(
        ((name, amount) for name, amount, count in places if count > 0 or (kind_of and amount > 0)), ("released", 0)
    )


async def unknown_body(state: State, key: str | None) -> list[dict[str, Any]]:
    """Return the jobs whose outcome nobody knows, of one key or of all. Raises operations.StateUnavailable."""
    found = []
    for job in await state.unknown_jobs():
        generation = await state.generation(job.generation)
        account = generation.row.account if generation else await _account_of(state, job)
        if key is None or account.key == key:
            found.append(_unknown_job(job, account))
    return found


async def _account_of(state: State, job: JobRow) -> Account:
    """Return who is charged for a job whose generation its caller has given up."""
    entries = await state.ledger(job=job.id, limit=1)
    return Account(entries[0].key, entries[0].key_name, entries[0].owner, entries[0].end_user) if entries else Account()


def _unknown_job(job: JobRow, account: Account) -> dict[str, Any]:
    return {
        "object": "ledger.job",
        "job": str(job.id),
        "at": shown_moment(job.submitted),
        "outcome": "unknown",
        "amount": decimal_text(job.amount),
        **_about(account.key_name, account.owner, account.user, job.provider, job.model),
        "price_source": job.price_source,
    }
