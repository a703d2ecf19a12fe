"""What keys and limits are read from: variables, words and addresses."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from proxy.accounts.amounts import in_words, read_limit, read_limits, read_moment, read_seconds, shown_moment
from proxy.accounts.given import key_digest, read_given
from proxy.accounts.keys import Key
from proxy.api.context import client_address
from proxy.api.tries import Tries
from proxy.config import ConfigurationError, ServerSettings, compose
from proxy.errors import RateLimited
from proxy.state.money import NANO, Limit

VARIABLES = ("KEYS", "ADMIN", "METRICS")


# --- variables --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("a, b,,a", ["", ""]),
        ("ann=long-enough,plain", ["ann", ""]),
        ("ann=long=enough=", ["ann"]),
        ("QUJDREVGRw==", [""]),
        ("sk+Ab/c=", [""]),
        ("a-b_9=12345678", ["a-b_9"]),
    ],
)
def test_keys_may_have_names(text: str, names: list[str]) -> None:
    given, problems = read_given(text, "", "", VARIABLES)
    assert problems == []
    assert list(given.callers.values()) == names
    assert given.ask == bool(names)


@pytest.mark.parametrize(
    ("callers", "admin", "metrics", "problem"),
    [
        ("ann=short", "", "", "KEYS: key 1 has a '='"),
        ("fine,Ann=long-enough", "", "", "KEYS: key 2 has a '='"),
        ("abcdefgh==", "", "", "KEYS: key 1 has a '='"),
        ("ann==long-enough", "", "", "KEYS: key 1 has a '='"),
        ("a.b=long-enough", "", "", "KEYS: key 1 has a '='"),
        (f"{'a' * 33}=long-enough", "", "", "KEYS: key 1 has a '='"),
        ("ann=long-enough,bob=long-enough", "", "", "KEYS: key 2 stands there twice"),
        ("ann=long-enough,ann=long-other", "", "", "KEYS: two keys have the name 'ann'"),
        ("", "fifteen-letters", "", "ADMIN: the admin key needs at least 16 characters"),
        ("sixteen--letters", "sixteen--letters", "", "ADMIN: the admin key must differ"),
        ("x=sixteen--letters", "sixteen--letters", "", "ADMIN: the admin key must differ"),
        ("plain", "", "plain", "METRICS: the key for metrics must differ"),
        ("", "sixteen--letters", "sixteen--letters", "METRICS: the key for metrics must differ"),
    ],
)
def test_what_is_doubtful_is_told_without_the_key(callers: str, admin: str, metrics: str, problem: str) -> None:
    _, problems = read_given(callers, admin, metrics, VARIABLES)
    assert problems[0].startswith(problem)
    assert not any("long-enough" in each or "sixteen--" in each for each in problems)


def test_doubtful_keys_end_the_start() -> None:
    with pytest.raises(ConfigurationError, match="IMAGES_PROXY_KEYS: key 1 has a '='"):
        compose({}, {"IMAGES_PROXY_KEYS": "ann=short"})
    with pytest.raises(ConfigurationError, match=r"limits\.budget: '5/year' is no limit"):
        compose({"limits": {"budget": ["5/year"]}}, {})
    with pytest.raises(ConfigurationError, match="two limits in pictures for the same period"):
        compose({"limits": {"owners": {"ann": {"pictures": ["5/day", "6/day"]}}}}, {})
    with pytest.raises(ConfigurationError, match=r"limits\.owners\.ann\.budgt: unknown key; did you mean 'budget'"):
        compose({"limits": {"owners": {"ann": {"budgt": ["5/day"]}}}}, {})


def test_limits_of_the_configuration_become_those_of_the_state() -> None:
    table = {"budget": ["50/month", "5/day"], "owners": {"ann": {"budget": ["1"], "pictures": ["3/week"]}}}
    assert compose({"limits": table}, {}).settings.limits.limits() == (
        Limit("all", "dollars", "month", 50 * NANO),
        Limit("all", "dollars", "day", 5 * NANO),
        Limit("owner:ann", "dollars", "total", NANO),
        Limit("owner:ann", "pictures", "week", 3),
    )


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unit", "period", "amount"),
    [
        ("5/month", "dollars", "month", 5 * NANO),
        ("$0.0025 / day", "dollars", "day", 2_500_000),
        ("0", "dollars", "total", 0),
        ("100/week", "pictures", "week", 100),
    ],
)
def test_limits_are_read_as_people_write_them(text: str, unit: Any, period: str, amount: int) -> None:
    assert read_limit(text, unit, "x") == Limit("x", unit, period, amount)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "x", "-1", "5/year", "5/", "1e3", "5 month", "0.0000000001", "9999999", "٣/day"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_limit(text, "dollars", "x")


def test_two_limits_for_the_same_period_contradict_each_other() -> None:
    assert len(read_limits(["1/day", "2/week"], ["1/day"], "x")) == 3
    with pytest.raises(ValueError, match="dollars for the same period"):
        read_limits(["1/day", "2/day"], [], "x")


def test_durations_and_dates() -> None:
    assert [read_seconds(text) for text in ("90d", "24h", "30m", "10s", "2w", "1mo")] == [
        7_776_000, 86_400, 1800, 10, 1_209_600, 2_592_000,
    ]  # fmt: skip
    assert read_moment("1d", 1000) == 86_401_000
    assert read_moment("1970-01-02", 5) == 86_400_000
    assert read_moment("1970-01-02T01:00:00+01:00", 5) == 86_400_000
    assert shown_moment(86_400_000) == "1970-01-02T00:00:00Z"
    for text in ("", "soon", "1y", "1970-13-01"):
        with pytest.raises(ValueError, match=r"no da|no du"):
            read_moment(text, 0)
    assert (in_words(2_500_000, "dollars"), in_words(1, "pictures"), in_words(0, "pictures")) == (
        "$0.0025",
        "1 picture",
        "0 pictures",
    )


@pytest.mark.parametrize(
    ("pattern", "model", "allowed"),
    [
        ("dall-e-*", "dall-e-3", True),
        ("dall-e-*", "xdall-e-3", False),
        ("*", "anything\n", True),
        ("imagelabs/*", "imagelabs/sdxl-turbo", True),
        ("a [1]*", "a [1].safetensors", True),
        ("a [1]*", "a 1", False),
        ("dall-e-3", "dall-e-33", False),
    ],
)
def test_only_a_star_is_a_wildcard(pattern: str, model: str, *, allowed: bool) -> None:
    assert Key(models=("other", pattern)).may_use(model) is allowed


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        ("198.51.100.7", None, "198.51.100.7"),
        ("198.51.100.7", "10.0.0.1", "198.51.100.7"),
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "203.0.113.9, 10.1.1.1", "203.0.113.9"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "nonsense", "nonsense"),
    ],
)
def test_an_address_is_believed_as_far_as_proxies_are_trusted(client: str, forwarded: str | None, address: str) -> None:
    headers = Headers({} if forwarded is None else {"x-forwarded-for": forwarded})
    settings = ServerSettings(trusted_proxies=("127.0.0.1", "10.0.0.0/8"))
    assert client_address({"client": (client, 1)}, headers, settings) == address


def test_tries_are_counted_by_address_and_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    tries = Tries(lambda: now[0])
    for _ in range(10):
        tries.check("a")
        tries.failed("a")
    with pytest.raises(RateLimited) as refusal:
        tries.check("a")
    assert refusal.value.retry_after == 60.0
    tries.check("b")
    now[0] = 60.0
    tries.check("a")
    monkeypatch.setattr("proxy.api.tries._MOST_ADDRESSES", 2)
    for address in "xyz":
        tries.failed(address)
    assert len(tries._failed) <= 2


def test_digests_are_of_bytes() -> None:
    assert key_digest("k\udcff") != key_digest("k")
