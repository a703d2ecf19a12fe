"""A thread that works through operations in groups, each group one transaction.

While one group is written to the disk the next one gathers, so the more operations come at once the less each costs;
where several come at once, groups follow each other no faster than every few milliseconds. What nobody waits for goes
along with the next group. Who asked is told after the commit only, all of a group by one call into the event loop.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar

from proxy.state.operations import StateUnavailable, StateUnusable
from proxy.state.sqlite.file import explain
from proxy.state.sqlite.tables import SqliteTables

_log = logging.getLogger(__name__)
T = TypeVar("T")
Observe = Callable[[int, float], None]
"""Is told the number of operations of a group and its seconds, in the thread that wrote it."""
_MOST: Final = 256
_SPACE_S: Final = 0.002
"""Between the beginnings of two groups, when the first had more than one operation."""
_LATER_S: Final = 0.05
"""The longest that an operation without hurry waits for others."""


class _Task(NamedTuple):
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop


class _Outcome(NamedTuple):
    future: "asyncio.Future[Any]"
    value: Any
    error: BaseException | None


class Transactions:
    """Does operations on one connection, several as one transaction.

    ``begin``: the statement that opens it. ``observe``: is told of each group.
    """

    def __init__(self, session: SqliteTables, path: Path | None, begin: str, observe: Observe | None) -> None:
        self._session = session
        self._path = path
        self._file = _identity(path)
        self._begin = begin
        self._observe = observe

    def close(self) -> None:
        """Close the connection."""
        self._session.connection.close()

    def work(self, group: list[_Task]) -> list[_Outcome]:
        """Do a group, and return what became of each. Raises nothing."""
        began = time.monotonic()
        outcomes = self._transaction(group)
        took_s = time.monotonic() - began
        if self._observe is not None:
            try:
                self._observe(len(group), took_s)
            except Exception:  # noqa: BLE001 (a metric must not end the thread)
                _log.exception("The state's observer failed.")
        return outcomes

    def _transaction(self, group: list[_Task]) -> list[_Outcome]:
        """Do all as one; when one fails, take all back and do them once more, each so that it can fail alone."""
        try:
            return self._attempt(group, _plainly)
        except StateUnusable as error:
            return self._failed(group, error)
        except Exception as error:  # noqa: BLE001 (told to whoever asked, or again below)
            self._take_back()
            if not isinstance(error, sqlite3.Error) or len(group) > 1:
                return self._separately(group)
            return self._failed(group, explain(error, self._path))

    def _separately(self, group: list[_Task]) -> list[_Outcome]:
        try:
            return self._attempt(group, self._alone)
        except StateUnavailable as error:
            return self._failed(group, error)
        except Exception as error:  # noqa: BLE001 (the thread goes on)
            self._take_back()
            return self._failed(group, explain(error, self._path))

    def _attempt(self, group: list[_Task], do: Callable[[SqliteTables, _Task], _Outcome]) -> list[_Outcome]:
        if _identity(self._path) != self._file:
            raise StateUnusable(f"The state {self._path} was moved or removed. Put it back, or start again without it.")
        self._session.begin(self._begin)
        outcomes = [do(self._session, task) for task in group]
        self._session.write_balances()
        self._session.execute("COMMIT")
        return outcomes

    def _take_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._session.connection.in_transaction:
                self._session.execute("ROLLBACK")
        self._session.forget()

    def _failed(self, group: list[_Task], error: StateUnavailable) -> list[_Outcome]:
        return [_Outcome(task.future, None, error) for task in group]

    def _alone(self, session: SqliteTables, task: _Task) -> _Outcome:
        """Do one operation; its failure takes back its own writes only. Raises sqlite3.Error if all are taken back."""
        session.execute("SAVEPOINT one")
        try:
            value = task.work(session, *task.arguments)
            session.write_balances()
        except Exception as error:
            session.forget()
            if not session.connection.in_transaction:  # a full disk may end the whole transaction
                raise error if isinstance(error, sqlite3.Error) else sqlite3.OperationalError(str(error)) from error
            session.execute("ROLLBACK TO one")
            session.execute("RELEASE one")
            told = explain(error, self._path) if isinstance(error, sqlite3.Error) else error
            return _Outcome(task.future, None, told)
        session.execute("RELEASE one")
        return _Outcome(task.future, value, None)


class Writer:
    """The thread, which alone uses ``transactions``."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._later: deque[_Task] = deque()
        self._nudged = False
        self._not_before = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """How many operations wait."""
        return self._tasks.qsize() + len(self._later)

    def ask(self, work: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Have ``work(session, *arguments)`` done in a transaction; what it returns or raises is told after the commit.

        Raises StateUnavailable when closed.
        """
        task = self._task(work, arguments)
        self._tasks.put(task)
        return task.future

    def ask_later(self, work: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Do the same as ``ask`` for what nobody waits for: soon, with the next that is asked for."""
        task = self._task(work, arguments)
        self._later.append(task)
        if not self._nudged:
            self._nudged = True
            task.loop.call_later(_LATER_S, self._nudge)
        return task.future

    def _task(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> _Task:
        if self._closed:
            raise StateUnavailable("The state is closed.")
        loop = asyncio.get_running_loop()
        return _Task(work, arguments, loop.create_future(), loop)

    def _nudge(self) -> None:
        self._nudged = False
        if self._later and not self._closed:
            woken = self.ask(_nothing)  # only the thread takes from what waits
            woken.add_done_callback(lambda done: done.cancelled() or done.exception())  # asked for by nobody

    def stop(self) -> threading.Thread:
        """Take no more; the thread returned ends after the last operation, and closes the connection."""
        if not self._closed:
            self._closed = True
            self._tasks.put(None)
        return self._thread

    def _run(self) -> None:
        more = True
        while more:
            first = self._tasks.get()
            if first is not None:
                time.sleep(max(0.0, self._not_before - time.monotonic()))
            more = first is not None
            hurried = [first] if first is not None else []
            with contextlib.suppress(Empty):
                while more and len(hurried) < _MOST:
                    task = self._tasks.get_nowait()
                    if task is None:
                        more = False
                    else:
                        hurried.append(task)
            group = [*self._waiting(), *hurried]
            if group:
                self._not_before = time.monotonic() + _SPACE_S if len(hurried) > 1 else 0.0
                self._work(group)
        self._transactions.close()

    def _waiting(self) -> list[_Task]:
        """Return what could wait, which was asked for before the rest."""
        return [self._later.popleft() for _ in range(len(self._later))]

    def _work(self, group: list[_Task]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
        for task, outcome in zip(group, self._transactions.work(group), strict=True):
            by_loop.setdefault(task.loop, []).append(outcome)
        for loop, told in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_tell, told)


class Inline:
    """Does each operation at once, in the caller's thread: right where no disk is waited for."""

    pending = 0

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._closed = False

    def ask(self, work: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Have ``work(session, *arguments)`` done in a transaction. Raises StateUnavailable when closed."""
        if self._closed:
            raise StateUnavailable("The state is closed.")
        loop = asyncio.get_running_loop()
        task = _Task(work, arguments, loop.create_future(), loop)
        _tell(self._transactions.work([task]))
        return task.future

    ask_later = ask

    def stop(self) -> threading.Thread | None:
        """Take no more; there is no thread to wait for."""
        if not self._closed:
            self._closed = True
            self._transactions.close()
        return None


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name, None without one."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _nothing(_session: SqliteTables) -> None:
    """Only wakes the thread up."""


def _plainly(session: SqliteTables, task: _Task) -> _Outcome:
    return _Outcome(task.future, task.work(session, *task.arguments), None)


def _tell(outcomes: list[_Outcome]) -> None:
    for future, value, error in outcomes:
        if future.done():  # who asked was cancelled
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
