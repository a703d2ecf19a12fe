"""Who lives: processes that follow jobs."""

from proxy.state.sqlite import rows
from proxy.state.sqlite.session import Session


def register(session: Session, holder: str, exclusive: bool) -> None:
    """Announce a process; an exclusive one is the only one of its kind, since it has the lock."""
    if exclusive:
        session.execute("DELETE FROM holders WHERE exclusive = 1 AND id != ?", (holder,))
    session.execute(
        "INSERT INTO holders VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET beat = excluded.beat",
        (holder, session.now, session.now, int(exclusive)),
    )
    session.serving = holder if exclusive else session.serving


def beat(session: Session, holder: str) -> bool:
    """Tell that a process lives."""
    if not rows.lives(session, holder):
        return False
    session.execute("UPDATE holders SET beat = ? WHERE id = ?", (session.now, holder))
    return True


def living(session: Session) -> tuple[str, ...]:
    """Return who lives, the oldest first."""
    found = session.execute("SELECT id FROM holders ORDER BY started, id").fetchall()
    return tuple(holder for (holder,) in found if rows.lives(session, holder))


def retire(session: Session, holder: str) -> None:
    """Take a process away."""
    session.serving = None
    session.execute("DELETE FROM holders WHERE id = ?", (holder,))
