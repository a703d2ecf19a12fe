"""What is written down of a request can be read by this version and by others."""

import json
from typing import Any

import pytest

from proxy.requests.summary import Origin, RequestSummary

_ORIGIN = Origin("one", "m", 64, 32, "high", (0, 9), None, ("size=1x1->64x32",), ("style",))
_SUMMARY = RequestSummary("dall-e-3", 2, "url", (_ORIGIN,), "png", 80, 1, 5, 7, ("frames",), 3)


def test_it_is_read_as_it_was_written() -> None:
    assert RequestSummary.load(_SUMMARY.dump()) == _SUMMARY


def test_what_another_version_wrote_is_read_as_far_as_it_is_known() -> None:
    values: dict[str, Any] = json.loads(_SUMMARY.dump())
    values["newer"] = {"a": 1}
    values["origins"][0]["newer"] = [1]
    del values["unshown"], values["text_tokens"]
    read = RequestSummary.load(json.dumps(values))
    assert (read.model, read.unshown, read.text_tokens, read.origins) == ("dall-e-3", 0, 1, (_ORIGIN,))


@pytest.mark.parametrize("text", ["{}", "[]", '{"origins": [{}]}', '{"origins": 1}'])
def test_anything_else_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="no summary of a request"):
        RequestSummary.load(text)


def test_seeds_wrap_around() -> None:
    assert [_ORIGIN.seeded(seed).seed for seed in (3, 9, 10, 23)] == [3, 9, 0, 3]


def test_at_most_twenty_names_are_told() -> None:
    many = RequestSummary("m", 1, "url", (_ORIGIN,), unknown=tuple(f"n{i}" for i in range(20)), unshown=4)
    told = many.told_dropped(_ORIGIN).split(", ")
    assert (told[0], len(told), told[-1]) == ("style", 21, "+5 more")
