"""What chat frontends ask of their chat model beside the user's wishes: titles, tags, follow-ups, queries.

Such a request must never buy a picture. It is told by the frontends' own words, mostly by how a message opens, and
answered in the form they parse; a user's wish that merely speaks of titles or conversations opens differently.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LOOKED_AT = 32_000
"""Characters of a message that are searched: more than any frontend's instructions, little enough to be quick."""
_MAX_WORDS, _MAX_CHARACTERS = 5, 50
_UNKNOWN_TOPIC = "Picture"


@dataclass(frozen=True, slots=True)
class Talk:
    """The texts of a conversation: the system's, the user's, and the JSON schema demanded of the answer, if any."""

    systems: Sequence[str]
    users: Sequence[str]
    schema: Mapping[str, Any] | None = None

    def topic(self) -> str:
        """Return the first words that the user said, in the conversation quoted here or else in this one."""
        quoted = _quoted(self.users[-1])
        said = quoted[0] if quoted else self.users[0] if len(self.users) > 1 else ""
        words = " ".join(re.sub(r"[^\w\s'-]", " ", said[:1000]).split()[:_MAX_WORDS])
        return words[:_MAX_CHARACTERS].strip().capitalize() or _UNKNOWN_TOPIC

    def last_wish(self) -> str:
        """Return what the user said last, whole."""
        quoted = _quoted(self.users[-1])
        return quoted[-1].strip() if quoted else self.topic()


def _openings(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\s*(?:{'|'.join(words)})", re.IGNORECASE)


def _asked(talk: Talk) -> str:
    """Return the question in LobeHub's "Follow Up Input: …, it's standalone query:"."""
    return talk.users[-1].removeprefix("Follow Up Input: ").removesuffix(", it's standalone query:")


# The openings are those of Open WebUI 0.12, LibreChat's agents, LobeHub, NextChat, Chatbox, Jan, big-AGI,
# BetterChatGPT, HuggingChat and Cherry Studio, older releases' included.
_KINDS: tuple[tuple[re.Pattern[str], Callable[[Talk], str]], ...] = (
    (
        _openings(
            r"(?:Please )?(?:provide|generate|create|write) a concise, 5-word-or-less title",
            r"Analyze this conversation and provide:",
            r"Please generate a concise title \(max \d+ characters\)",
            r"Please generate a four to five word title",
            r"Generate a title in less than \d+ words for",
            r"(?:Please )?name the conversation based on the chat records",
            r"Based on the chat history, give this conversation a name",
            r"Summarize in an? \d+-word title",
            r"You are an AI conversation titles assistant",
            r"You are a chat thread titling assistant",
            r"You are a professional conversation summarizer",
            r"You are an assistant skilled in conversation\. You need to summarize",
            r"你是一名擅长会话的助理",
            r"你是一位资深的 AI 艺术创作者和语言大师",
        ),
        Talk.topic,
    ),
    (
        _openings(
            r"You're an assistant who's good at extracting key takeaways",
            r"You are a conversation context compressor",
            r"Summarize the conversation for future reference",
            r"Summarize (?:the|our) discussion briefly in \d+ words",
            r"你是一名擅长(?:技能总结|起名)的",
        ),
        Talk.topic,
    ),
    (
        _openings(r"You are a professional translator\. Translate the input", r"你是一名擅长翻译的助理"),
        lambda talk: talk.users[-1],
    ),
    (_openings(r"Given the following conversation and a follow-up question, rephrase"), _asked),
    (
        _openings(
            r"You are an emoji expert",
            r"Your task is to reflect the speaker's likely facial expression",
            r"你是.{0,20}emoji",
        ),
        lambda _: "🎨",
    ),
    (_openings(r"你是一名擅长会话标签总结的助理"), lambda _: "Images"),
    (_openings(r"你是一名精通全世界语言的语言专家"), lambda _: "en-US"),
    (_openings(r"You are a sidecar that extracts"), lambda _: '{"chips": []}'),
    (
        _openings(r"Available Tools:[\s\S]{0,30000}Your task is to choose and return the correct tool"),
        lambda _: _NO_TOOLS,
    ),
    (_openings(r"You have been provided with a set of responses from various models"), lambda _: _NOT_HERE),
)
_NO_TOOLS = '{"tool_calls": []}'
_NOT_HERE = "This model only makes pictures."

_TASK = re.compile(r"\s*#+[ \t]*Task:")
_TASK_SIGN = re.compile(r"<chat_history>|[\"'][a-z_]+[\"']:|will be compacted out")
_TASK_KEYS: tuple[tuple[str, Callable[[Talk], object]], ...] = (
    ("title", Talk.topic),
    ("tags", lambda _: ["Images"]),
    ("follow_ups", lambda _: []),
    ("queries", lambda _: []),
    ("text", lambda _: ""),
    ("prompt", Talk.last_wish),
)
_WITH_DOCUMENTS = re.compile(r"\s*#+[ \t]*Task:\s{0,9}Respond to the user query using the provided context")

_TITLE = re.compile(
    r"(?:generate|create|provide|write|suggest|come up with) (?:a|an|the)\b.{0,60}\btitle\b.{0,60}"
    r"\b(?:conversation|chat|discussion|dialog|thread)"
    r"|summarize .{0,40}\b(?:conversation|chat|discussion)\b"
    r"|(?:总结|總結).{0,20}(?:标题|標題)",
    re.IGNORECASE | re.DOTALL,
)
_SPEAKER = re.compile(
    r"^[ \t-]*(user|human|you|user message|assistant|ai|bot)[ \t]*:[ \t]*", re.IGNORECASE | re.MULTILINE
)
_EMPTY: dict[str, Callable[[], object]] = {
    "array": list,
    "object": dict,
    "boolean": bool,
    "integer": int,
    "number": int,
}


def answer(talk: Talk) -> str | None:
    """Return the text that answers a frontend's housekeeping; None when the last message is a user's own wish."""
    text = talk.users[-1][:_LOOKED_AT]
    if _TASK.match(text) and not _WITH_DOCUMENTS.match(text) and _TASK_SIGN.search(text):
        return _task_answer(talk, text)
    if talk.schema is not None:
        return _fill(talk.schema, talk)
    for message in (text, *talk.systems):
        for opening, reply in _KINDS:
            if opening.match(message[:_LOOKED_AT]):
                return reply(talk)
    if any(_TITLE.search(message[:_LOOKED_AT]) for message in (text, *talk.systems)) and _quotes_conversation(text):
        return talk.topic()
    return None


def wish(text: str) -> str:
    """Return the user's own words in a message into which Open WebUI has put documents, else the message itself."""
    if not _WITH_DOCUMENTS.match(text):
        return text
    _, opening, query = text.rpartition("<user_query>")
    return query.partition("</user_query>")[0] if opening else text.rpartition("</context>")[2]


def _task_answer(talk: Talk, text: str) -> str:
    for key, value in _TASK_KEYS:
        if re.search(rf'["\']{key}["\']\s{{0,9}}:', text):
            return json.dumps({key: value(talk)}, ensure_ascii=False)
    return talk.topic()


def _fill(schema: Mapping[str, Any], talk: Talk) -> str:
    """Return JSON of the demanded form: the topic for texts, nothing for the rest."""
    properties = schema.get("properties")
    made: dict[str, Any] = {}
    for name, part in properties.items() if isinstance(properties, dict) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        made[name] = _EMPTY[kind]() if isinstance(kind, str) and kind in _EMPTY else talk.topic()
    return json.dumps(made, ensure_ascii=False)


def _quotes_conversation(text: str) -> bool:
    """Tell a frontend's request from a wish for, say, a picture of a title page: it brings a conversation of two."""
    speakers = {speaker.lower() for speaker in _SPEAKER.findall(text)}
    return "<chat_history>" in text or bool(
        speakers & {"user", "human", "you"} and speakers & {"assistant", "ai", "bot"}
    )


def _quoted(text: str) -> list[str]:
    """Return what the user says in the conversation that ``text`` quotes."""
    _, opening, history = text[:_LOOKED_AT].partition("<chat_history>")
    pieces = _SPEAKER.split(history.partition("</chat_history>")[0] if opening else text[:_LOOKED_AT])
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return [said for speaker, said in turns if speaker.lower() not in ("assistant", "ai", "bot") and said.strip()]
