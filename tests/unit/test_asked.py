"""Whatever comes in as a request to the Responses API is read or refused."""

import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.api.pictured import Pictured, Pictures
from proxy.api.responses.asked import CALL, TOOL, read
from proxy.errors import InvalidRequest

_WORDS = st.sampled_from(
    [TOOL, CALL, "user", "developer", "message", "input_text", "input_image", "item_reference", "ig_1", "auto", "none",
     "required", "allowed_tools", "function", "json_schema", "edit", "a cat", "", "data:,x"]
)  # fmt: skip
_KEYS = st.sampled_from(
    ["type", "role", "content", "text", "image_url", "url", "id", "result", "tools", "mode", "model", "action", "n",
     "input_image_mask", "format", "schema", "properties"]
)  # fmt: skip
_JSON = st.recursive(
    _WORDS | st.none() | st.booleans() | st.integers(-2, 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=20,
)
_TOP = st.sampled_from(
    ["tools", "tool_choice", "model", "metadata", "text", "instructions", "previous_response_id", "background", "store",
     "stream", "size", "conversation"]
)  # fmt: skip
_SAID: Any = {"role": "user", "content": "a cat"}
_ODD = _JSON | st.lists(_WORDS)
_PARTS = st.lists(
    st.fixed_dictionaries({"type": _WORDS | _ODD, "text": _ODD, "image_url": _ODD}), min_size=1, max_size=3
)
_KINDS, _ROLES = st.sampled_from([None, "message", CALL, "item_reference"]), st.sampled_from(["user", "developer"])
_ITEMS = st.fixed_dictionaries({"type": _KINDS | _ODD, "role": _ROLES | _ODD, "content": _PARTS | _ODD, "id": _ODD})


@given(
    st.dictionaries(_TOP, _JSON | st.lists(st.dictionaries(_KEYS, _JSON), max_size=2), max_size=6),
    _JSON | st.lists(_ITEMS | _JSON, max_size=3).map(lambda items: [*items, _SAID]),
)
def test_any_json_is_read_or_refused(values: dict[str, Any], items: Any) -> None:
    with contextlib.suppress(InvalidRequest):
        asked = read(Pictured({**values, "input": items}, Pictures(1000)))
        assert asked.prompt
        assert asked.text is None or isinstance(asked.text, str)
        assert asked.message is None or isinstance(asked.message, str)
        assert asked.values()["prompt"] == asked.prompt
        for told in (asked.ignored, asked.tool_model, asked.action, asked.mask):
            with contextlib.suppress(InvalidRequest):
                told()
