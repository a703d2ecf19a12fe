"""``keys``, ``usage`` and ``ledger``: beside a service that runs, on the same file."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy import cli
from proxy.commands.states import csv_cell
from proxy.demo import KEYS
from tests.accounts.parts import MODEL, bearer
from tests.service import Service, running
from tests.time_skip import real_time

pytestmark = pytest.mark.anyio

Command = Callable[..., Any]


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite3"


@pytest.fixture
async def service(state_file: Path) -> AsyncIterator[Service]:
    keys = {"IMAGES_PROXY_KEYS": "first-key"}
    async with running(speed=400, state={"path": str(state_file)}, environment=keys) as service:
        yield service


@pytest.fixture
def command(state_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs a command, with the status that is expected, and returns what it printed."""
    config = tmp_path / "config.toml"
    config.write_text(f'[state]\npath = "{state_file}"\n', encoding="utf-8")

    def here(words: tuple[str, ...]) -> int:
        try:
            cli.main([words[0], *words[1:], "--config", str(config)])
        except SystemExit as ended:
            return int(ended.code or 0)
        raise AssertionError("it always exits")

    async def run(*words: str, status: int = 0) -> Any:
        capsys.readouterr()  # what the service has said meanwhile
        with real_time():
            ended = await asyncio.to_thread(here, words)
        out, err = capsys.readouterr()
        assert ended == status, err
        if status:
            assert err.count("\n") == 1
            return err
        return json.loads(out) if "--json" in words else out

    return run


async def picture(service: Service, key: str, prompt: str = "a fox", **values: Any) -> int:
    return (await service.generate(prompt, bearer(key), model=MODEL, **values)).status


async def test_a_key_made_beside_the_service_works_within_five_seconds(service: Service, command: Command) -> None:
    made = await command(
        "keys", "create", "ann", "--budget", "5/month", "--pictures", "2/day", "--models", "dall-e-*, prodia/*",
        "--expires", "90d", "--owner", "family", "--per-minute", "30", "--at-once", "4", "--json",
    )  # fmt: skip
    assert made["key"].startswith("sk-ip-")
    assert made["tail"] == made["key"][-4:]
    async with asyncio.timeout(5):
        while await picture(service, made["key"]) != 200:  # noqa: ASYNC110 (no event tells it)
            await asyncio.sleep(0.2)
    (listed,) = (await command("keys", "list", "--json"))["keys"]
    assert "key" not in listed
    assert (listed["budget"], listed["pictures"], listed["owner"]) == (["5/month"], ["2/day"], "family")
    assert listed["models"] == ["dall-e-*", "prodia/*"]
    shown = await command("keys", "show", "ann", "--json")
    pictures, dollars = shown["limits"]
    assert (dollars["spent"], dollars["remaining"], pictures["remaining"]) == ("0.0025", "4.9975", "1")
    assert made["key"] not in json.dumps(shown)
    assert [change["change"] for change in shown["changes"]] == ['{"created": true}']


async def test_a_key_through_its_life(command: Command) -> None:
    secret = (await command("keys", "create", "ann", "--budget", "1/day", "--pictures", "5")).strip()
    assert secret.startswith("sk-ip-")
    assert "409" not in await command("keys", "create", "ann", status=2)
    changed = await command("keys", "update", "ann", "--budget", "2/day", "--budget", "9", "--owner", "x", "--json")
    assert (changed["budget"], changed["pictures"]) == (["2/day", "9/total"], ["5/total"])
    raised = await command("keys", "raise", "ann", "5", "--until", "2099-01-01", "--json")
    assert raised["budget"] == ["2/day", "9/total"]
    day, total, _ = (await command("keys", "show", "ann", "--json"))["limits"]
    assert (day["limit"], day["raised_by"], day["raised_until"]) == ("7", "5", "2099-01-01T00:00:00Z")
    assert total["limit"] == "14"
    rotated = await command("keys", "rotate", "ann", "--grace", "24h", "--json")
    assert rotated["key"] != secret
    assert rotated["old_until"]
    assert (await command("keys", "disable", "ann", "--json"))["disabled"]
    assert not (await command("keys", "enable", "ann", "--json"))["disabled"]
    assert "ann" in await command("keys", "list")
    assert "2 dollars" not in await command("keys", "show", "ann")
    await command("keys", "update", "ann", "--budget", "none", "--rename", "bob", "--count-by", "user")
    bob = await command("keys", "show", "bob", "--json")
    assert (bob["budget"], bob["count_by"]) == ([], "user")
    assert len(bob["changes"]) == 7
    assert all(change["who"].startswith("command line") for change in bob["changes"])
    await command("keys", "delete", "bob")
    assert "no such key" in await command("keys", "show", "bob", status=2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "ann", "--budget", "5/year"), "the periods are day, week, month, total"),
        (("create", "ann", "--budget", "1/day", "--budget", "2/day"), "Two limits in dollars for the same period"),
        (("create", "ann", "--pictures", "1.5"), "no whole number"),
        (("create", "sk-ann"), "doesn't look like a key"),
        (("create", "command-line"), "a meaning of its own"),
        (("create", "ann", "--expires", "soon"), "--expires: 'soon' is no duration"),
        (("create", "ann", "--per-minute", "-1"), "'per_minute' must be between 0"),
        (("raise", "ann", "5"), "--until"),
        (("update", "nobody", "--owner", "x"), "There is no such key"),
        ((), "ACTION"),
    ],
)
async def test_a_mistake_is_one_line(command: Command, words: tuple[str, ...], said: str) -> None:
    assert said in await command("keys", *words, status=2)


async def test_usage_and_ledger_tell_what_was_bought(service: Service, command: Command) -> None:
    ann = (await command("keys", "create", "=ann")).strip()
    await service.engine.accounts.refresh()
    assert await picture(service, ann, n=3) == 200
    assert await picture(service, ann, "a bird [fault:drop]") == 502
    by_key = await command("usage", "--json")
    (row,) = by_key["rows"]
    assert row["key"] == "=ann"
    assert (row["pictures"], row["spent"], row["unknown"], row["unknown_pictures"]) == (3, "0.0075", "0.0025", 1)
    assert by_key["total"] == {name: value for name, value in row.items() if name != "key"}
    for by in ("owner", "model", "provider", "day"):
        assert (await command("usage", "--by", by, "--since", "7d", "--json"))["total"] == by_key["total"]
    (line,) = csv.DictReader(io.StringIO(await command("usage", "--csv")))
    assert (line["key"], line["spent"]) == ("'=ann", "0.0075")
    assert "0.0075" in await command("usage")
    (unknown,) = (await command("ledger", "--unknown", "--json"))["data"]
    assert (unknown["key"], unknown["amount"]) == ("=ann", "0.0025")
    assert unknown["job"] in await command("ledger", "--unknown")
    await command("ledger", "resolve", unknown["job"], "free")
    assert "whose outcome is unknown" in await command("ledger", "resolve", unknown["job"], "paid", status=2)
    entries = (await command("ledger", "--key", "=ann", "--json"))["data"]
    assert [entry["kind"] for entry in entries][:2] == ["correct", "unknown"]
    assert entries[0]["who"].startswith("command line")
    assert len(await command("ledger", "--limit", "2")) < len(await command("ledger"))
    assert (await command("usage", "--json"))["total"]["unknown"] == "0"


async def test_an_end_user_is_forgotten_by_the_name_that_callers_send(service: Service, command: Command) -> None:
    ann = (await command("keys", "create", "ann", "--count-by", "user")).strip()
    await service.engine.accounts.refresh()
    assert await picture(service, ann, user="x@example.org") == 200
    (digest,) = [row["user"] for row in (await command("usage", "--by", "user", "--json"))["rows"]]
    assert digest != "x@example.org"
    assert (await command("ledger", "forget", "x@example.org", "--json"))["entries"] == 2
    assert [row["user"] for row in (await command("usage", "--by", "user", "--json"))["rows"]] == [""]
    assert "no entry" in await command("ledger", "forget", "x@example.org", status=2)


async def test_pictures_from_the_command_line_are_counted_and_limited(
    state_file: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"budget": ["0.0025"]}
    async with running(speed=400, state={"path": str(state_file)}, limits=limits) as service:
        for variable, key in KEYS.items():
            monkeypatch.setenv(variable, key)
        with (tmp_path / "config.toml").open("a", encoding="utf-8") as config:
            config.write(f'[providers.prodia]\nbase_url = "{service.upstream}/v2"\n')
        monkeypatch.chdir(tmp_path)
        unpriced = "prodia/inference.flux-fast.dev.txt2img.v1"
        said = await command("generate", "a fox", "--model", unpriced, status=2)
        assert "providers.prodia.prices" in said
        await command("generate", "a fox", "--model", MODEL)
        assert "This service may use $0.0025 in all" in await command("generate", "a bird", "--model", MODEL, status=1)
        (row,) = (await command("usage", "--json"))["rows"]
        assert (row["key"], row["pictures"], row["spent"]) == ("command-line", 1, "0.0025")
        assert len((await command("ledger", "--key", "command-line", "--json"))["data"]) == 2
        assert (await command("ledger", "--key", "first-key", "--json", status=2)).count("no such key") == 1


async def test_a_state_in_memory_is_told(tmp_path: Path, command: Command) -> None:
    (tmp_path / "config.toml").write_text('[state]\npath = ":memory:"\n', encoding="utf-8")
    assert "no other process can see" in await command("usage", status=2)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"
    assert csv_cell("0.5") == "0.5"
