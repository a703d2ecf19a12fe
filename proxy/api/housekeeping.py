"""What chat frontends ask of their chat model beside the user's wishes: titles, tags, follow-ups, queries.

Such a request must never buy a picture. It is told by the frontends' own words and answered in the form they parse.
Open WebUI's tasks all begin with "### Task:" and name the JSON they want; LibreChat and LobeChat ask for a title
in words of their own.
"""

import json
import re
from collections.abc import Callable, Sequence

_TASK = re.compile(r"\s*(?:#+\s*Task\s*:|Task:\s*\n)", re.IGNORECASE)
_TITLE = re.compile(
    r"5-word-or-less title"
    r"|concise title in the detected language"
    r"|(?:generate|create|provide|write|suggest|come up with) (?:a|an|the)\b.{0,60}\btitle\b.{0,60}"
    r"\b(?:conversation|chat|discussion|dialog|thread|query|essence)"
    r"|\bconcise title \(max"
    r"|professional conversation summarizer"
    r"|three to five word (?:title|name)"
    r"|summarize .{0,40}\b(?:conversation|chat|discussion)\b"
    r"|(?:总结|總結).{0,20}(?:标题|標題)",
    re.IGNORECASE | re.DOTALL,
)
_JSON_KEYS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("title", lambda topic: topic),
    ("tags", lambda _: ["Images"]),
    ("follow_ups", lambda _: []),
    ("queries", lambda _: []),
    ("text", lambda _: ""),
    ("prompt", lambda topic: topic),
    ("summary", lambda topic: topic),
)
_HISTORY = re.compile(r"<chat_history>(.*?)</chat_history>", re.DOTALL)
_SPEAKER = re.compile(r"^\s*(?:user|human|you)\s*:\s*", re.IGNORECASE | re.MULTILINE)
_MAX_WORDS, _MAX_CHARACTERS = 5, 50
_UNKNOWN_TOPIC = "Picture"


def answer(systems: Sequence[str], text: str) -> str | None:
    """Return the text that answers a frontend's housekeeping; None when ``text`` is a user's own wish.

    ``systems``: the system messages, ``text``: the last user message.
    """
    if _TASK.match(text) or any(_TASK.match(system) for system in systems):
        return _task_answer("\n".join((*systems, text)))
    if any(_TITLE.search(system) for system in systems) or _asks_for_title(text):
        return _title(text)
    return None


def _asks_for_title(text: str) -> bool:
    """Tell a frontend's request from a user's wish for, say, a picture of a title page: it brings a conversation."""
    if "5-word-or-less title" in text or "concise title in the detected language" in text:
        return True
    return bool(_TITLE.search(text)) and bool(_SPEAKER.search(text) or "<chat_history>" in text or "请总结" in text)


def _task_answer(text: str) -> str:
    for key, value in _JSON_KEYS:
        if re.search(rf'["\']{key}["\']\s*:', text):
            return json.dumps({key: value(_title(text))}, ensure_ascii=False)
    return _title(text)


def _title(text: str) -> str:
    """Return the first words of the user's part of the conversation that ``text`` quotes."""
    history = _HISTORY.search(text)
    talk = history[1] if history else text
    said = _SPEAKER.search(talk)
    if said is None and not history:
        return _UNKNOWN_TOPIC
    line = talk[said.end() if said else 0 :].strip().partition("\n")[0]
    words = " ".join(re.sub(r"[^\w\s'-]", " ", line).split()[:_MAX_WORDS])
    return words[:_MAX_CHARACTERS].strip().capitalize() or _UNKNOWN_TOPIC
