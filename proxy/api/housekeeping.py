"""What chat frontends want from their chat model besides the user's requests: titles, tags, follow-ups, queries.

Such a request must never buy a picture. It is recognised by the frontends' own words, mostly by how a message opens,
and answered in the form they parse; a user's request that merely mentions titles or conversations opens differently.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

_END_CHARACTERS = 4_000
"""Characters at each end of a message that are searched: more than any frontend's instructions have, and a bound on
the time that a hostile message costs."""
_END_SYSTEMS = 2
"""Frontends put their instructions into the first or the last of the system's messages."""
_MAX_PROPERTIES = 5_000
"""What OpenAI allows in one schema (https://platform.openai.com/docs/guides/structured-outputs)."""
_MAX_WORDS, _MAX_CHARACTERS = 5, 50
"""Of a title, as most of the frontends' instructions want it."""
_UNKNOWN_TOPIC = "Picture"


@dataclass(frozen=True)
class Talk:
    """The texts of a conversation: the system's, the user's, and the JSON schema demanded of the answer, if any."""

    systems: Sequence[str]
    users: Sequence[str]
    schema: Mapping[str, Any] | None = None

    @cached_property
    def last(self) -> str:
        """Both ends of the user's last message."""
        return _ends(self.users[-1])

    @cached_property
    def instructions(self) -> Sequence[str]:
        """Both ends of the messages that may hold a frontend's instructions, the user's first."""
        systems = self.systems
        if len(systems) > 2 * _END_SYSTEMS:
            systems = (*systems[:_END_SYSTEMS], *systems[-_END_SYSTEMS:])
        return (self.last, *map(_ends, systems))

    @cached_property
    def quoted(self) -> Sequence[str]:
        """What the user says in the conversation that the last message quotes."""
        # Open WebUI puts it between these tags; others write it behind their instructions.
        _, opening, history = self.last.partition("<chat_history>")
        pieces = _SPEAKER.split(history.partition("</chat_history>")[0] if opening else self.last)
        turns = zip(pieces[1::2], pieces[2::2], strict=True)
        return [said for speaker, said in turns if speaker.lower() not in _MACHINES and said.strip()]

    @cached_property
    def topic(self) -> str:
        """The first words that the user said, in the quoted conversation or else in this one."""
        # A lone message is the frontend's own and says nothing about the conversation.
        said = self.quoted[0] if self.quoted else self.users[0] if len(self.users) > 1 else ""
        words = " ".join(_NO_WORD.sub(" ", said[:1000]).split()[:_MAX_WORDS])
        return words[:_MAX_CHARACTERS].strip().capitalize() or _UNKNOWN_TOPIC


def _ends(text: str) -> str:
    """Return a text of bounded length: whole, or its first and last characters with a line break between."""
    if len(text) <= 2 * _END_CHARACTERS:
        return text
    return f"{text[:_END_CHARACTERS]}\n{text[-_END_CHARACTERS:]}"


def _topic(talk: Talk) -> str:
    return talk.topic


def _last_said(talk: Talk) -> str:
    """Return the user's last quoted words, so that an "enhanced" prompt is the prompt itself."""
    return talk.quoted[-1].strip() if talk.quoted else talk.topic


def _openings(*words: str) -> re.Pattern[str]:
    return re.compile(rf"\s*(?:{'|'.join(words)})", re.IGNORECASE)


def _asked(talk: Talk) -> str:
    """Return the question in LobeHub's "Follow Up Input: …, it's standalone query:"."""
    return talk.users[-1].removeprefix("Follow Up Input: ").removesuffix(", it's standalone query:")


# The openings are those of Open WebUI 0.12, LibreChat's agents, LobeHub, NextChat, Chatbox, Jan, big-AGI,
# BetterChatGPT, HuggingChat and Cherry Studio, and of their older releases. The first that matches wins.
_KINDS: tuple[tuple[re.Pattern[str], Callable[[Talk], str]], ...] = (
    (  # titles of conversations
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
        _topic,
    ),
    (  # summaries that replace older messages, and names for an agent
        _openings(
            r"You're an assistant who's good at extracting key takeaways",
            r"You are a conversation context compressor",
            r"Summarize the conversation for future reference",
            r"Summarize (?:the|our) discussion briefly in \d+ words",
            r"你是一名擅长(?:技能总结|起名)的",
        ),
        _topic,
    ),
    (  # translations: the text goes back as it came
        _openings(r"You are a professional translator\. Translate the input", r"你是一名擅长翻译的助理"),
        lambda talk: talk.users[-1],
    ),
    (_openings(r"Given the following conversation and a follow-up question, rephrase"), _asked),
    (  # an emoji for an agent or a mood
        _openings(
            r"You are an emoji expert",
            r"Your task is to reflect the speaker's likely facial expression",
            r"你是.{0,20}emoji",
        ),
        lambda _: "🎨",
    ),
    (_openings(r"你是一名擅长会话标签总结的助理"), lambda _: "Images"),  # tags
    (_openings(r"你是一名精通全世界语言的语言专家"), lambda _: "en-US"),  # the language of a text
    (_openings(r"You are a sidecar that extracts"), lambda _: '{"chips": []}'),
    (
        _openings(r"Available Tools:[\s\S]*Your task is to choose and return the correct tool"),
        lambda _: _NO_TOOLS,
    ),
    (_openings(r"You have been provided with a set of responses from various models"), lambda _: ONLY_PICTURES),
)
_NO_TOOLS = '{"tool_calls": []}'
ONLY_PICTURES = "This model only makes pictures."

# Open WebUI's tasks, as in https://github.com/open-webui/open-webui/blob/main/backend/open_webui/config.py.
# Each names the key of the JSON that it wants.
_TASK = re.compile(r"\s*#+[ \t]*Task:")
_TASK_SIGN = re.compile(r"<chat_history>|[\"'][a-z_]+[\"']:|will be compacted out")
_TASK_KEY = re.compile(r"[\"'](title|tags|follow_ups|queries|text|prompt)[\"']\s{0,9}:")
_TASK_KEYS: tuple[tuple[str, Callable[[Talk], object]], ...] = (
    ("title", _topic),
    ("tags", lambda _: ["Images"]),
    ("follow_ups", lambda _: []),
    ("queries", lambda _: []),
    ("text", lambda _: ""),
    ("prompt", _last_said),
)
_WITH_DOCUMENTS = re.compile(r"\s*#+[ \t]*Task:\s{0,9}Respond to the user query using the provided context")

# For frontends that are not listed above, and prompts that an administrator has reworded. The gaps are bounded, so
# that no text makes the search slow.
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
_MACHINES = frozenset({"assistant", "ai", "bot"})
_PEOPLE = frozenset({"user", "human", "you"})
_NO_WORD = re.compile(r"[^\w\s'-]")
_EMPTY: dict[str, Callable[[], object]] = {
    "array": list,
    "object": dict,
    "boolean": bool,
    "integer": int,
    "number": int,
}


def answer(talk: Talk) -> str | None:
    """Return the text that answers a frontend's housekeeping; None when the last message is a user's own request."""
    text = talk.last
    # From the surest sign to the weakest: the last one counts only together with a quoted conversation.
    if _TASK.match(text) and not _WITH_DOCUMENTS.match(text) and _TASK_SIGN.search(text):
        return _task_answer(talk, text)
    if talk.schema is not None:
        return _fill(talk.schema, talk)
    for message in talk.instructions:
        for opening, reply in _KINDS:
            if opening.match(message):
                return reply(talk)
    if _quotes_conversation(text) and any(_TITLE.search(message) for message in talk.instructions):
        return talk.topic
    return None


def checked(text: str) -> str:
    """Return the user's own words in a message into which Open WebUI has put documents, else the message itself."""
    if not _WITH_DOCUMENTS.match(text):
        return text
    # Not every release's template has that tag; then the query follows the documents.
    _, opening, query = text.rpartition("<user_query>")
    return query.partition("</user_query>")[0] if opening else text.rpartition("</context>")[2]


def _task_answer(talk: Talk, text: str) -> str:
    named = set(_TASK_KEY.findall(text))
    for key, value in _TASK_KEYS:
        if key in named:
            return json.dumps({key: value(talk)}, ensure_ascii=False)
    return talk.topic


def _fill(schema: Mapping[str, Any], talk: Talk) -> str:
    """Return JSON of the demanded form: the topic for texts, nothing for the rest."""
    properties = schema.get("properties")
    made: dict[str, Any] = {}
    for name, part in islice(properties.items(), _MAX_PROPERTIES) if isinstance(properties, dict) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        made[name] = _EMPTY[kind]() if isinstance(kind, str) and kind in _EMPTY else talk.topic
    return json.dumps(made, ensure_ascii=False)


def _quotes_conversation(text: str) -> bool:
    """Whether a text quotes both sides of a conversation: a frontend does, a user who wants a title page does not."""
    speakers = {speaker.lower() for speaker in _SPEAKER.findall(text)}
    return "<chat_history>" in text or bool(speakers & _PEOPLE and speakers & _MACHINES)
