"""The values that cross the boundary, and what every dialect has in common."""

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ContentRefused, GenerationFailed, ProviderBadResponse, ProviderFailure
from proxy.providers.boundary import (
    SUBMIT,
    File,
    Finished,
    Handle,
    InputPicture,
    Job,
    ListsModels,
    Pending,
    Provider,
    Range,
    Reply,
    UnreadableReply,
    failed_job,
    job_id,
)
from proxy.providers.registry import KINDS
from tests.providers.examples import (
    ANSWERS,
    BEGUN,
    BOUNDARY,
    FOLLOWED,
    JOB,
    KEY,
    PROMPT,
    brought,
    job,
    provider,
    reply,
    streamed,
)

FOLLOWING = {kind: provider(kind, **FOLLOWED.get(kind, {})) for kind in KINDS}
"""Each kind as its jobs are followed: started, and asked about."""


def _handles(kind: str) -> Iterator[Handle]:
    """Yield every handle to which the examples lead, one for each step."""
    seen, found = {"submit"}, [BEGUN.get(kind, SUBMIT)]
    for asked in found:
        for value in ANSWERS[kind].get(asked.step, ()):
            with contextlib.suppress(ProviderFailure):
                answer = FOLLOWING[kind].read(asked, reply(json.dumps(value).encode()))
                leads_to = (answer.handle, answer.otherwise) if isinstance(answer, Pending) else ()
                for handle in leads_to:
                    if handle is not None and handle.step not in seen:
                        seen.add(handle.step)
                        found.append(handle)
                        yield handle


_SHOWN = [kind for kind in KINDS if kind in ANSWERS]
HANDLES = [(kind, handle) for kind in _SHOWN for handle in _handles(kind)]
ASKED = [
    *((kind, provider(kind), SUBMIT) for kind in _SHOWN),
    *((kind, FOLLOWING[kind], BEGUN[kind]) for kind in FOLLOWED),
    *((kind, FOLLOWING[kind], handle) for kind, handle in HANDLES),
]
"""Every step of every dialect whose replies are read differently."""

OBJECTS = [
    (dialect, asked)
    for kind, dialect, asked in ASKED
    if all(isinstance(value, dict) for value in ANSWERS[kind].get(asked.step, ()))
]
"""Those answered with a JSON object; other answers are tested with their dialect."""

Place = tuple[str | int, ...]
IDS_THAT_ARE_NONE = [
    "../../x",
    "../../../../../../etc",
    "abcdefgh/../x",
    "abcdefgh?x=1",
    "abcdefgh#x",
    "abcdefgh\n",
    "a b",
]
ODD: list[Any] = [
    *(None, True, 0, -1, 7, 400, 0.5, -0.5, 1e308, 10**400, float("nan"), float("inf")),
    *("", "x", "half", "0.5", JOB, "http://[x", "ü\ud800", "a" * 70_000),
    *([], [[]], ["x"], [None], {}, {"": []}, {"x": {"x": None}}),
    *IDS_THAT_ARE_NONE,
]
"""What may stand where something else is expected."""


def _places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield where each value in ``value`` stands, itself included."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _places(each, (*at, key))


def _with(value: Any, at: Place, odd: Any) -> Any:
    """Return ``value`` with ``odd`` at that place."""
    if not at:
        return odd
    changed = copy.copy(value)
    changed[at[0]] = _with(value[at[0]], at[1:], odd)
    return changed


def _fields(value: Any) -> Iterator[str]:
    for place in _places(value):
        yield from (key for key in place[-1:] if isinstance(key, str))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(each)


_EXAMPLES = [value for steps in ANSWERS.values() for values in steps.values() for value in values]
_words = st.sampled_from(sorted({text for value in _EXAMPLES for text in _texts(value)} | {"http://[x"}))
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _words
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
_objects = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(sorted({key for value in _EXAMPLES for key in _fields(value)}), _values)
)


def test_every_kind_has_examples_of_its_answers() -> None:
    for name in KINDS.keys() - ANSWERS.keys():
        pytest.fail(f"add {name} to examples.ANSWERS: what it answers to the submit and at each later step")
    assert ANSWERS.keys() == KINDS.keys()
    for kind, steps in ANSWERS.items():
        reached = {handle.step for name, handle in HANDLES if name == kind}
        first = {SUBMIT.step, BEGUN.get(kind, SUBMIT).step}
        assert reached == steps.keys() - first, f"the examples of {kind} lead to other steps than they are of"


def _check(dialect: Provider, asked: Handle, value: Any, status: int = 200) -> None:
    """Hold a dialect to what it may make of an answer: a failure of the provider's, or plain data in its bounds."""
    said = reply(json.dumps(value).encode(), status, content_type="application/json")
    assert isinstance(dialect.refusal(said), str)
    try:
        answer = dialect.read(asked, said)
    except ProviderFailure:
        return
    if isinstance(answer, Finished):
        assert isinstance(answer.image, str | bytes | Path)
        assert answer.seed is None or type(answer.seed) is int
        assert answer.elapsed_s is None or 0 <= answer.elapsed_s < float("inf")
        assert answer.cost is None or (type(answer.cost) is int and 0 <= answer.cost < 2**53)
        return
    assert answer.progress is None or 0 <= answer.progress <= 1
    assert answer.preview is None or isinstance(answer.preview, str)
    for handle in filter(None, (answer.handle, answer.otherwise)):
        assert Handle.load(handle.dump()) == handle
        url = dialect.ask(handle).url
        assert not any(no_id in url for no_id in IDS_THAT_ARE_NONE), "an id goes into an address unchecked: use job_id"


@pytest.mark.parametrize(("kind", "dialect", "asked"), ASKED)
def test_any_field_of_an_answer_may_hold_anything(kind: str, dialect: Provider, asked: Handle) -> None:
    for example in ANSWERS[kind][asked.step]:
        for place in _places(example):
            for odd in ODD:
                _check(dialect, asked, _with(example, place, odd))


@pytest.mark.parametrize(("dialect", "asked"), [(dialect, asked) for _, dialect, asked in ASKED])
@given(value=_objects | _values)
@settings(max_examples=15, deadline=None)
def test_any_json_is_read_or_refused_as_the_providers_failure(dialect: Provider, asked: Handle, value: Any) -> None:
    for status in (200, 400):
        _check(dialect, asked, value, status)


@pytest.mark.parametrize(("dialect", "asked"), [(dialect, asked) for _, dialect, asked in ASKED])
@given(body=st.binary(max_size=200), content_type=st.sampled_from(["multipart/form-data; boundary=x", "text/html", ""]))
@settings(max_examples=15, deadline=None)
def test_any_bytes_are_read_or_refused_as_the_providers_failure(
    dialect: Provider, asked: Handle, body: bytes, content_type: str
) -> None:
    said = reply(body, content_type=content_type)
    assert isinstance(dialect.refusal(said), str)
    try:
        dialect.read(asked, said)
    except ProviderFailure:
        return


@pytest.mark.parametrize(("dialect", "asked"), OBJECTS)
@pytest.mark.parametrize(
    "body",
    [b"", b"<html><title>Bad Gateway</title></html>", b'{"job": "0f4c', b"[" * 100_000, b"\xff\xfe{", b"[1]", b"null"],
    ids=["empty", "html", "cut", "deep", "garbled", "list", "null"],
)
def test_what_is_not_the_dialect_is_unreadable(dialect: Provider, asked: Handle, body: bytes) -> None:
    with pytest.raises(UnreadableReply):
        dialect.read(asked, reply(body, content_type="application/json"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_dialect_knows_its_models_and_asks_a_free_question(kind: str) -> None:
    dialect = provider(kind)
    names = [one.name for one in dialect.models()]
    assert len(set(names)) == len(names) > 0
    assert dialect.probe().url.startswith(KINDS[kind].base_url)
    assert "generate" not in dialect.probe().url


@pytest.mark.parametrize("kind", KINDS)
def test_base_urls_may_end_in_a_slash(kind: str) -> None:
    assert (
        provider(kind, "https://provider.test/v9/").probe().url
        == provider(kind, "https://provider.test/v9").probe().url
    )


def test_lists_of_models_are_asked_for_in_safe_calls() -> None:
    listing = {kind: dialect for kind in KINDS if isinstance(dialect := provider(kind), ListsModels)}
    assert "prodia-v1" in listing
    for dialect in listing.values():
        assert dialect.catalogue()
        assert all(call.safe for call in dialect.catalogue())


@pytest.mark.parametrize(("kind", "handle"), HANDLES)
def test_a_handle_can_be_written_down_and_asked_with_later(kind: str, handle: Handle) -> None:
    written = handle.dump()
    assert json.loads(written) == asdict(handle)
    assert Handle.load(written) == handle
    call = FOLLOWING[kind].ask(Handle.load(written))
    assert call.safe
    assert JOB in f"{call.url} {call.query} {call.json}"


@given(st.text(), st.text(), st.text(), st.text())
def test_any_handle_survives_being_written_down(step: str, job_id: str, name: str, told: str) -> None:
    assert Handle.load(Handle(step, job_id, name, told).dump()) == Handle(step, job_id, name, told)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"step": 5}', '{"step": "job", "url": "x"}', '"job"'])
def test_what_is_no_handle_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own error is one)
        Handle.load(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["submit", "", "unheard-of"])
def test_only_a_dialects_own_steps_can_be_asked(kind: str, step: str) -> None:
    with pytest.raises(ValueError, match="no step"):
        provider(kind).ask(Handle(step, JOB))


@pytest.mark.parametrize("kind", KINDS)
def test_no_call_and_no_handle_holds_a_credential(kind: str) -> None:
    for dialect in (provider(kind), FOLLOWING[kind]):
        calls = [dialect.submit(job(dialect.models()[0], seed=1)), dialect.probe()]
        calls += dialect.catalogue() if isinstance(dialect, ListsModels) else ()
        calls += [dialect.ask(handle) for name, handle in HANDLES if name == kind]
        values = [*map(asdict, calls), *(handle.dump() for name, handle in HANDLES if name == kind), repr(dialect)]
        assert KEY not in str(values)
        assert all(name not in call.headers for call in calls for name in dialect.credentials())
    assert any(KEY in value for value in provider(kind).credentials().values()) == bool(KINDS[kind].key_env)


@pytest.mark.parametrize("kind", KINDS)
def test_representations_hide_keys_prompts_and_addresses(kind: str) -> None:
    dialect = provider(kind)
    made_by = next((one for one in dialect.models() if "edit" in one.operations), dialect.models()[0])
    wanted = job(made_by, images=(brought(b"pixels"),) if "edit" in made_by.operations else (), seed=1)
    call = dialect.submit(wanted)
    said = Reply(200, {"set-cookie": "session=s3cret"}, b"s3cret body")
    for shown in map(repr, (dialect, wanted, call, said, *wanted.images, *call.files)):
        for secret in (KEY, "fox", "pixels", "s3cret", urlsplit(call.url).path):
            assert secret not in shown


def test_the_rest_of_the_values_hide_what_they_carry() -> None:
    assert "secret" not in repr(Finished("https://pictures.test/secret.png"))
    assert "secret" not in repr(File("input", "a.png", "image/png", b"secret"))
    assert "secret" not in repr(InputPicture(b"secret", "png", 1, 1))
    assert PROMPT not in repr(Job(provider("imagelabs").models()[0], "generate", PROMPT, {"negative_prompt": PROMPT}))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("1e999", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_nothing(value: str, seconds: float | None) -> None:
    assert reply(retry_after=value).retry_after == seconds
    assert Reply(429).retry_after is None


@pytest.mark.parametrize(
    ("value", "content_type"),
    [("image/PNG; q=1", "image/png"), ("", ""), (" Text/HTML ;charset=x", "text/html"), (";", "")],
)
def test_content_type_is_the_bare_media_type(value: str, content_type: str) -> None:
    assert reply(content_type=value).content_type == content_type


def test_json_is_read_whatever_the_content_type_says() -> None:
    assert reply(b'{"a": 1}', content_type="text/html").json_object() == {"a": 1}
    assert reply('{"a": "ü"}'.encode("utf-8-sig")).json_object() == {"a": "ü"}


@pytest.mark.parametrize("value", [JOB, "a" * 8, "A_-9" * 16])
def test_a_job_id_is_handed_through(value: str) -> None:
    assert job_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        12345678,
        "short",
        "a" * 65,
        "../../../etc",
        "abcdefgh/..",
        "abcdefgh?x=1",
        "abcdefgh\n",
        "äbcdefgh",
        ["abcdefgh"],
        {"id": JOB},
        True,
        "abc defgh",
        "abcdefgh#",
        "%2e%2e%2f%2e%2e",
    ],
)
def test_nothing_else_passes_for_a_job_id(value: Any) -> None:
    with pytest.raises(ProviderBadResponse, match="names no job"):
        job_id(value)


@pytest.mark.parametrize(
    "reason",
    [
        "NSFW content detected",
        "violates our content policy",
        "content_policy",
        "Safety system",
        "moderated",
        "inappropriate",
        "prohibited words",
        "sensitive",
    ],
)
def test_a_failure_over_content_is_told_by_its_words(reason: str) -> None:
    failure = failed_job(reason)
    assert isinstance(failure, ContentRefused)
    assert reason not in failure.message


@pytest.mark.parametrize("reason", ["", "out of memory", "None", "steps: maximum: got 1,000"])
def test_any_other_failure_is_just_a_failure(reason: str) -> None:
    assert isinstance(failed_job(reason), GenerationFailed)


@pytest.mark.parametrize(
    ("limits", "value", "kept"),
    [
        (Range(1, 4), 9, 4),
        (Range(1, 4), 0, 1),
        (Range(1, 4), 2.9, 2),
        (Range(1, 10, whole=False), 2.5, 2.5),
        (Range(1.5, 10, whole=False), 0, 1.5),
    ],
)
def test_numbers_are_brought_into_range(limits: Range, value: float, kept: float) -> None:
    assert limits.clamp(value) == kept
    assert isinstance(limits.clamp(value), int) is limits.whole


def test_the_boundary_of_the_examples_is_awkward_indeed() -> None:
    assert provider("prodia").read(
        SUBMIT,
        streamed(
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=job\r\n\r\n{{}}\r\n"
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=output\r\n\r\n".encode()
            + b"\xff\xd8\xff--"
            + f"\r\n--{BOUNDARY}--\r\n".encode(),
            f"multipart/form-data; boundary={BOUNDARY}",
        ),
    ) == Finished(cast("Path", b"\xff\xd8\xff--"))
