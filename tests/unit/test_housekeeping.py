"""What a frontend's request costs to be told: the characters that patterns search, whatever its length and form."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from proxy.api import housekeeping
from proxy.api.housekeeping import Talk, answer, checked

TALK = "User: Draw a red lighthouse at dawn, please\nAssistant: ![image](x)\n"
TITLE = "Please generate a title for this conversation.\n"


class Counting:
    """A pattern that counts the characters it is given to search."""

    def __init__(self, pattern: re.Pattern[str], count: Callable[[int], None]) -> None:
        self._pattern, self._count = pattern, count

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._pattern, name)

        def counted(*arguments: Any) -> Any:
            self._count(max(len(argument) for argument in arguments))
            return method(*arguments)

        return counted


class Work:
    """The characters searched so far."""

    def __init__(self) -> None:
        self.characters = 0

    def add(self, characters: int) -> None:
        self.characters += characters

    def of(self, talk: Talk) -> int:
        """Return what it takes to answer."""
        self.characters = 0
        answer(talk)
        return self.characters


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work()

    def counted(value: Any) -> Any:
        if isinstance(value, re.Pattern):
            return Counting(value, work.add)
        return tuple(map(counted, value)) if isinstance(value, tuple) else value

    for name, value in vars(housekeeping).items():
        if isinstance(value, re.Pattern | tuple):
            monkeypatch.setattr(housekeeping, name, counted(value))
    return work


def schema(properties: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(properties)}}


def long_talk(lines: int) -> str:
    return TITLE + TALK * lines


LONG: dict[str, Callable[[int], Talk]] = {
    "properties": lambda size: Talk((), (long_talk(size),), schema(size)),
    "one quoted conversation": lambda size: Talk((), (long_talk(size),)),
    "many system messages": lambda size: Talk(("generate a title " * 9,) * size, ("a fox",)),
    "a long system message": lambda size: Talk(("generate a title " * size,), ("a fox",)),
    "many user messages": lambda size: Talk((), ("generate a title",) * size),
    "a task": lambda size: Talk((), (f'### Task:\n"title": <chat_history>{TALK * size}',)),
    "blanks": lambda size: Talk((" " * size,), ("User:\n" * size,)),
}


@pytest.mark.parametrize("kind", LONG)
def test_twice_the_length_is_no_more_than_twice_the_work(work: Work, kind: str) -> None:
    once, twice = (work.of(LONG[kind](size)) for size in (2_000, 4_000))
    assert 0 < twice <= 2.5 * once
    assert work.of(LONG[kind](40_000)) <= 1_500_000


def test_a_topic_is_looked_for_once(work: Work) -> None:
    one, many = (work.of(Talk((), (long_talk(100),), schema(properties))) for properties in (1, 4_000))
    assert one == many


def test_both_ends_of_a_message_decide() -> None:
    first, last = "User: a red fox\nAssistant: x\n", "User: now a blue one\nAssistant: x\n"
    talk = Talk((), (f"{TITLE}{first}{TALK * 2_000}{last}",))
    assert answer(talk) == "A red fox"
    assert talk.quoted[-1].strip() == "now a blue one"
    tools = f"Available Tools: [{'{} ' * 20_000}]\n\nYour task is to choose and return the correct tool(s)."
    assert answer(Talk((tools,), ("a fox",))) == '{"tool_calls": []}'
    assert answer(Talk(("You draw.",) * 50 + ("You are an emoji expert.",), ("a fox",))) == "🎨"


def test_a_schema_of_any_size_is_filled_within_bounds() -> None:
    filled = json.loads(answer(Talk((), ("a fox",), schema(50_000))) or "")
    assert len(filled) == 5_000
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"type": "object", "properties": {"inner": deep}}
    assert json.loads(answer(Talk((), ("a fox",), deep)) or "") == {"inner": {}}


@pytest.mark.parametrize("filler", ["<user_query>", "</user_query>", "#", " ", "### Task:"])
def test_a_request_among_documents_is_found_in_one_pass(filler: str) -> None:
    opening = "### Task: Respond to the user query using the provided context"
    assert checked(f"{opening}{filler * 100_000}<user_query>a fox</user_query>") == "a fox"
