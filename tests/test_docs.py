"""The documentation: short where it is read first, its links lead somewhere, its commands work, its tables are true."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import config
from proxy.cli import main
from proxy.metrics import Metrics
from proxy.providers.registry import KINDS
from proxy.simulator import faults

_ROOT = Path(__file__).parents[1]
_PAGES = [_ROOT / "README.md", _ROOT / "CHANGELOG.md", *sorted((_ROOT / "docs").glob("*.md"))]
_MOST_WORDS = 1200
_HERE = "http://127.0.0.1:8080"
"""The address in every example; the tests put the running demo's in its place."""
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_BLOCK = re.compile(r"^<!-- run -->\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"^(?P<mark><!-- [^\n]* -->\n)?```(?:sh|python|js)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_INSIDE = re.compile(
    r"(?i:(?<!in[ _])(?<!in-)\bflights?\b|\bboarding\b|\bleftovers?\b|\boutlets?\b|\bsuppliers?\b|\bwish(?:es)?\b)"
    r"|/images/jobs/|imgjob_|x-images-job\b|\bfacts/|/tmp/|\bF\d{1,2}\b"
)
"""Names that no reader can know: those of parts long renamed, and of notes that are not in the repository."""


def _prose(text: str) -> str:
    return _COMMENT.sub("", _FENCED.sub("", text))


def _runnable(path: Path, *languages: str) -> list[Any]:
    """Return what stands below ``<!-- run -->`` as parameters, named by file and line."""
    text = path.read_text(encoding="utf-8")
    return [
        pytest.param(match["language"], match["text"], id=f"{path.name}:{text.count(chr(10), 0, match.start()) + 1}")
        for match in _BLOCK.finditer(text)
        if match["language"] in languages
    ]


def _anchors(path: Path) -> set[str]:
    """Return the names under which GitHub makes a page's headings reachable."""
    headings = re.findall(r"^#+ (.+)$", _prose(path.read_text(encoding="utf-8")), re.MULTILINE)
    words = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in words}


def test_the_readme_is_read_in_five_minutes() -> None:
    words = re.findall(r"[^\s|]*\w[^\s|]*", _prose((_ROOT / "README.md").read_text(encoding="utf-8")))
    assert 500 < len(words) <= _MOST_WORDS


def test_the_readme_says_early_that_no_provider_was_reached() -> None:
    text = (_ROOT / "README.md").read_text(encoding="utf-8")
    assert "No real provider has been reached" in text.partition("\n## ")[0]
    assert "](docs/page.png)" in text.partition("\n## ")[0]
    assert (_ROOT / "docs/page.png").stat().st_size < 300_000


@pytest.mark.parametrize("path", _PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    targets = [match["target"] for match in _LINK.finditer(_prose(path.read_text(encoding="utf-8")))]
    for target in targets:
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        page = (path.parent / file).resolve() if file else path
        assert page.is_file(), target
        assert page.is_relative_to(_ROOT), target
        assert not anchor or anchor in _anchors(page), target


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {match["target"].partition("#")[0] for match in _LINK.finditer((_ROOT / "README.md").read_text("utf-8"))}
    assert {str(path.relative_to(_ROOT)) for path in _PAGES} - {"README.md"} <= linked


@pytest.mark.parametrize("path", [path for path in _PAGES if path.name != "CHANGELOG.md"], ids=lambda path: path.name)
def test_no_page_uses_a_name_that_its_readers_cannot_know(path: Path) -> None:
    assert [match.group() for match in _INSIDE.finditer(path.read_text(encoding="utf-8"))] == []


# --- what is to be typed ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader works: what one example writes, the next may read."""
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    secrets = ("PRODIA_TOKEN", "PRODIA_API_KEY", "IMAGES_PROXY_KEYS", "IMAGES_PROXY_CONFIG")
    own = {name: value for name, value in os.environ.items() if name not in secrets}
    path = os.pathsep.join((str(Path(sys.executable).parent), own["PATH"]))
    return own | {"PATH": path, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(_ROOT)}


@pytest.fixture(scope="module")
def log() -> list[dict[str, Any]]:
    """The lines that the demo has written, as far as they are JSON."""
    return []


@pytest.fixture(scope="module")
def demo(environment: dict[str, str], folder: Path, log: list[dict[str, Any]]) -> Iterator[str]:
    """The origin of a running demo."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "serve", "--demo", "--demo-speed", "50", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONUNBUFFERED": "1"},
        cwd=folder,
    )

    def read_log() -> None:
        for line in process.stderr or ():
            if line.startswith("{"):
                log.append(json.loads(line))  # noqa: PERF401 (each line when it comes)

    reader = threading.Thread(target=read_log, daemon=True)
    with process:
        reader.start()
        try:
            found = re.search(r"http://[\w.]+:\d+", process.stdout.readline() if process.stdout else "")
            assert found is not None
            yield found.group()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=10)


def _type(language: str, text: str, environment: dict[str, str], folder: Path) -> str:
    """Do what an example says, and return what it printed."""
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("language", "text"), [each for path in _PAGES for each in _runnable(path, "sh", "python")])
def test_what_is_to_be_typed_works(
    demo: str, environment: dict[str, str], folder: Path, language: str, text: str
) -> None:
    if language == "sh" and "curl" in text and shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    printed = _type(language, text.replace(_HERE, demo), environment, folder)
    assert '"error"' not in printed


@pytest.mark.parametrize("path", _PAGES, ids=lambda path: path.name)
def test_what_is_not_run_says_why(path: Path) -> None:
    blocks = _TYPED.finditer(path.read_text(encoding="utf-8"))
    unmarked = [
        match["text"] for match in blocks if not re.match(r"<!-- (run|not run: \S.+) -->$", match["mark"] or "")
    ]
    assert unmarked == []


def _faults() -> list[Any]:
    """Return each word that docs/operations.md offers for prompts: the word, whom to ask, and what comes of it."""
    page = (_ROOT / "docs/operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\[[\w:.-]+\])` \| (.+?) \| (\d{3})(?: `(\w+)`)? \|$", page, re.MULTILINE)
    polled = "imagelabs/sdxl-turbo"
    return [
        pytest.param(word, polled if polled in does else "dall-e-3", int(status), code or None, id=word)
        for word, does, status, code in rows
    ]


@pytest.mark.parametrize(("word", "model", "status", "code"), _faults())
def test_words_in_prompts_do_what_is_said(demo: str, word: str, model: str, status: int, code: str | None) -> None:
    asked = {"prompt": f"a red fox {word}", "model": model, "response_format": "b64_json"}
    data = json.dumps(asked).encode()
    call = urllib.request.Request(f"{demo}/v1/images/generations", data)  # noqa: S310 (the demo)
    try:
        answer = urllib.request.urlopen(call, timeout=30)  # noqa: S310
    except urllib.error.HTTPError as refusal:
        answer = refusal
    with answer:
        told = json.load(answer)
    assert answer.status == status
    assert told.get("error", {}).get("code") == code


def test_every_fault_is_listed() -> None:
    known = {name for name, _ in faults.FAULTS}
    page = (_ROOT / "docs/operations.md").read_text(encoding="utf-8").partition("### Every fault")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == known


def test_the_page_lists_every_fault() -> None:
    page = (_ROOT / "proxy/page/index.html").read_text(encoding="utf-8")
    listed = re.findall(r"<dt><code>\[fault:([\w-]+)\]</code></dt><dd>(.*?)</dd>", page)
    assert [(name, html.unescape(text)) for name, text in listed] == list(faults.FAULTS)


@pytest.mark.parametrize(("language", "text"), [each for path in _PAGES for each in _runnable(path, "toml")])
def test_what_is_to_be_configured_is_valid(language: str, text: str, tmp_path: Path) -> None:
    assert language == "toml"
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    keys = {"IMAGES_PROXY_KEYS": "sk-my-first-key", "PRODIA_TOKEN": "token", "SECOND_TOKEN": "token"}
    assert config.load(file, keys).settings.server.host


def test_the_commands_exist(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in _PAGES)
    named = set(re.findall(r"`(?:\.venv/bin/)?images-proxy ([a-z]+)|^\S*images-proxy ([a-z]+)", text, re.MULTILINE))
    commands = {first or second for first, second in named} - {"is"}
    assert {"serve", "generate", "models", "check"} <= commands
    for command in sorted(commands):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0, command
    capsys.readouterr()


# --- what the tables say ----------------------------------------------------------------------------------------


def _documented() -> dict[str, str]:
    """Return each configuration key that docs/configuration.md describes, with the cell that holds its default."""
    keys: dict[str, str] = {}
    table = ""
    for line in (_ROOT / "docs/configuration.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"## `\[([a-z]+)", line):
            table = match[1]
        elif line.startswith("## "):
            table = ""
        elif table and (cells := re.match(r"\| `([a-z_0-9]+)` \| (.+?) \|", line)):
            assert f"{table}.{cells[1]}" not in keys, f"{table}.{cells[1]} stands there twice"
            keys[f"{table}.{cells[1]}"] = cells[2]
    return keys


def _example() -> dict[str, list[Any]]:
    """Return each key of config.example.toml with the values it has there; names of providers and models left out."""
    example = tomllib.loads((_ROOT / "config.example.toml").read_text(encoding="utf-8"))
    keys: dict[str, list[Any]] = {}
    for table, values in example.items():
        tables = values.values() if table in ("providers", "models") else [values]
        for each in tables:
            for key, value in each.items():
                keys.setdefault(f"{table}.{key}", []).append(value)
    return keys


def test_every_key_of_the_configuration_is_explained() -> None:
    assert set(_documented()) == set(_example())


def test_the_defaults_are_those_of_the_example() -> None:
    example = _example()
    for key, cell in _documented().items():
        if key in example and (written := re.fullmatch(r"`(.+)`", cell)):
            assert tomllib.loads(f"value = {written[1]}")["value"] in example[key], key


def test_the_kinds_that_have_a_key_are_told() -> None:
    text = (_ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    section = text.partition("## `[providers.NAME]`")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", section, re.MULTILINE))
    for key, kinds in told.items():
        having = [f"`{name}`" for name, kind in KINDS.items() if key in kind.settings.model_fields]
        assert kinds == ("all" if len(having) == len(KINDS) else ", ".join(having)), key
    assert set(told) == set().union(*(kind.settings.model_fields for kind in KINDS.values()))


def test_the_metrics_exist() -> None:
    families = list(Metrics().registry.collect())
    samples = {sample.name for family in families for sample in family.samples}
    names = {family.name for family in families} | {f"{family.name}_total" for family in families} | samples
    for path in _PAGES:
        named = set(re.findall(r"images_proxy_[a-z_]+", path.read_text(encoding="utf-8")))
        assert named - names == set(), path.name


@pytest.mark.parametrize(("status", "prompt"), [(200, "a red fox"), (502, "a red fox [fault:drop]")])
def test_the_log_looks_like_its_samples(
    demo: str, environment: dict[str, str], folder: Path, log: list[dict[str, Any]], status: int, prompt: str
) -> None:
    page = (_ROOT / "docs/operations.md").read_text(encoding="utf-8")
    samples = [json.loads(line) for line in page.splitlines() if line.startswith('{"time"')]
    picture = next(sample for sample in samples if sample.get("status") == status)
    call = f'curl -s {demo}/v1/images/generations -d \'{{"model": "dall-e-3", "prompt": "{prompt}"}}\''
    if shutil.which("curl") is None:
        pytest.skip("no curl on the PATH")
    before = len(log)
    _type("sh", call, environment, folder)
    deadline = time.monotonic() + 10
    while len(log) == before and time.monotonic() < deadline:  # the line is written behind the answer
        time.sleep(0.01)
    written = log[before]
    assert list(written) == list(picture)
    assert {name: type(value) for name, value in written.items()} == {n: type(v) for n, v in picture.items()}
    assert [written.get(name) for name in ("route", "code")] == [picture.get(name) for name in ("route", "code")]
