"""Words in a prompt that steer the simulator, such as ``[fault:busy:2]``, ``[seconds:0.5]`` or ``[tag:mine]``.

``[fault:NAME:ARGUMENT:…]`` chooses a row of ``faults.FAULTS``; ``[seconds:S]`` is the exact duration of the job and
``[queued:S]`` of its queued part, both in real seconds; ``[tag:T]`` groups the counts of ``/_counts``;
``[bytes:N]`` makes the picture a blank PNG of about N bytes.
"""

import re
from dataclasses import dataclass

# One pair of brackets may be inside a word: an IPv6 address in a fault's address has them.
_WORD = re.compile(r"\[(fault|seconds|queued|tag|bytes):((?:[^\[\]\s]|\[[^\[\]\s]*\])+)\]")
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?\Z")
_LOWEST_STATUS = 400


@dataclass(frozen=True, slots=True)
class Fault:
    """One chosen fault: its name, and what followed the name after a colon."""

    name: str
    text: str = ""

    @property
    def arguments(self) -> list[str]:
        """The text, split at its colons."""
        return self.text.split(":") if self.text else []

    def number(self, position: int, default: float) -> float:
        """Return the argument at a position among the numbers below 400: a count, or seconds."""
        numbers = [number for number in self._numbers() if number < _LOWEST_STATUS]
        return numbers[position] if position < len(numbers) else default

    def status(self, default: int) -> int:
        """Return the first argument that is an HTTP status of failure."""
        return next((int(number) for number in self._numbers() if _LOWEST_STATUS <= number <= 599), default)

    def _numbers(self) -> list[float]:
        return [float(argument) for argument in self.arguments if _NUMBER.match(argument)]


@dataclass(frozen=True, slots=True)
class Words:
    """All the words in a submit's texts. Times are in seconds."""

    faults: tuple[Fault, ...] = ()
    seconds: float | None = None
    queued: float | None = None
    tag: str = ""
    bytes: int | None = None

    def fault(self, name: str) -> Fault | None:
        """Return the chosen fault of that name."""
        return next((fault for fault in self.faults if fault.name == name), None)

    def has(self, *names: str) -> bool:
        """Whether one of the named faults is chosen."""
        return any(fault.name in names for fault in self.faults)


def read_words(*texts: str) -> Words:
    """Return the words found in the texts."""
    found = [match.groups() for text in texts for match in _WORD.finditer(text)]
    values = {kind: value for kind, value in found if kind != "fault"}
    size = _number(values.get("bytes"))
    return Words(
        faults=tuple(Fault(*value.split(":", 1)) for kind, value in found if kind == "fault"),
        seconds=_number(values.get("seconds")),
        queued=_number(values.get("queued")),
        tag=values.get("tag", ""),
        bytes=None if size is None else int(size),
    )


def strip_words(text: str) -> str:
    """Return the text without its steering words, as it is drawn."""
    return " ".join(_WORD.sub(" ", text).split())


def _number(value: str | None) -> float | None:
    return float(value) if value and _NUMBER.match(value) else None
