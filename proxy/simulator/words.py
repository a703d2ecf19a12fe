"""Words in a prompt that steer the simulator, such as ``[fault:F28:2]``, ``[seconds:0.5]`` or ``[tag:mine]``.

``[fault:NAME:ARGUMENT:…]`` chooses a row of the fault tables in the dialects' files and in ``faults``;
``[seconds:S]`` is the exact duration of the job and ``[queued:S]`` of its queued part, both in real seconds;
``[tag:T]`` groups the counts of ``/_counts``; ``[bytes:N]`` asks for an undrawn PNG of about N bytes.
"""

import re
from dataclasses import dataclass

_WORD = re.compile(r"\[(fault|seconds|queued|tag|bytes):((?:[^\[\]\s]|\[[^\[\]\s]*\])+)\]")
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?\Z")
_LOWEST_STATUS = 400

_ROWS = {
    "prodia-legacy": "F1 F2 F3 F4 F5 F6 F7 F28 F29 F30 F31",
    "prodia-v1": "F3 F4 F5 F8 F9 F28 F29 F30 F31",
    "prodia": "F10 F11 F12 F13 F14 F15 F16 F17 F18 F28 F29 F30 F31",
    "imagelabs": "F19 F20 F21 F22 F23 F24 F25 F26 F27 F28 F29 F30 F31",
}
"""Which numbered faults belong to which dialect; a row of another dialect is ignored."""

_SPOKEN = {dialect: frozenset(rows.split()) for dialect, rows in _ROWS.items()}
_NUMBERED = re.compile(r"F\d+\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """One chosen fault: its name, and what followed the name after a colon."""

    name: str
    text: str = ""

    @property
    def arguments(self) -> list[str]:
        """The text, split at its colons."""
        return self.text.split(":") if self.text else []

    def numbers(self) -> list[float]:
        """Return the arguments that are numbers below 400: counts and seconds."""
        return [number for number in self._all_numbers() if number < _LOWEST_STATUS]

    def number(self, position: int, default: float) -> float:
        """Return the number (count or seconds) at a position among the numbers."""
        numbers = self.numbers()
        return numbers[position] if position < len(numbers) else default

    def status(self, default: int) -> int:
        """Return the first argument that is an HTTP status of failure."""
        return next((int(n) for n in self._all_numbers() if _LOWEST_STATUS <= n <= 599), default)

    def _all_numbers(self) -> list[float]:
        return [float(argument) for argument in self.arguments if _NUMBER.match(argument)]


@dataclass(frozen=True, slots=True)
class Words:
    """Everything that a submit's texts ask of the simulator. Times are in seconds."""

    faults: tuple[Fault, ...] = ()
    seconds: float | None = None
    queued: float | None = None
    tag: str = ""
    bytes: int | None = None

    def fault(self, *names: str) -> Fault | None:
        """Return the first chosen fault that bears one of the names."""
        return next((fault for fault in self.faults if fault.name in names), None)

    def has(self, *names: str) -> bool:
        """Whether one of the named faults is chosen."""
        return self.fault(*names) is not None


def read_words(dialect: str, *texts: str) -> Words:
    """Return the words found in the texts, without the numbered faults of other dialects."""
    found = [match.groups() for text in texts for match in _WORD.finditer(text)]
    values = {kind: value for kind, value in found if kind != "fault"}
    faults = [Fault(*_split(value)) for kind, value in found if kind == "fault"]
    size = _number(values.get("bytes"))
    return Words(
        faults=tuple(f for f in faults if not _NUMBERED.match(f.name) or f.name in _SPOKEN[dialect]),
        seconds=_number(values.get("seconds")),
        queued=_number(values.get("queued")),
        tag=values.get("tag", ""),
        bytes=None if size is None else int(size),
    )


def strip_words(text: str) -> str:
    """Return the text without its steering words, as it is drawn."""
    return " ".join(_WORD.sub(" ", text).split())


def _split(value: str) -> tuple[str, str]:
    name, _, text = value.partition(":")
    return name, text


def _number(value: str | None) -> float | None:
    return float(value) if value and _NUMBER.match(value) else None
