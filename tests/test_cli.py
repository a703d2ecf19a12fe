"""The commands as a user types them: what they print, what they write, how they end."""

import asyncio
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from proxy import __version__, commands
from proxy.cli import main
from proxy.generations.record import Generation
from proxy.pictures.codec import inspect_file
from proxy.providers.registry import KINDS

_ROOT = Path(__file__).parents[1]
_SECRETS = ("PRODIA_TOKEN", "PRODIA_API_KEY", "IMAGES_PROXY_KEYS", "IMAGES_PROXY_CONFIG")
_QUICK = ("--demo", "--demo-speed", "100")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and nothing of the tester's own settings."""
    for name in _SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "proxy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _run_here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command inside this process, where it takes no time to start."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    written = capsys.readouterr()
    return int(str(end.value.code)), written.out, written.err


@pytest.fixture
def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["paint"], "'paint'"),
        (["--nonsense"], "COMMAND"),
        (["serve", "--nonsense"], "--nonsense"),
        (["serve", "--port", "70000"], "'70000' is no port"),
        (["serve", "--port", "-1"], "--port"),
        (["serve", "--port", "http"], "'http' is no port"),
        (["serve", "--demo", "--demo-speed", "0"], "'0' is no positive number"),
        (["serve", "--demo", "--demo-speed", "nan"], "'nan' is no positive number"),
        (["serve", "--demo", "--demo-speed", "inf"], "'inf' is no positive number"),
        (["serve", "extra"], "extra"),
        (["serve", "--config"], "--config"),
        (["generate"], "PROMPT"),
        (["generate", "a boat", "-n", "many"], "'many'"),
        (["generate", "a boat", "-n", "11", *_QUICK], "above maximum value"),
        (["generate", "a boat", "-n", "0", *_QUICK], "below minimum value"),
        (["generate", "", *_QUICK], "must not be empty"),
        (["generate", "a boat", "--size", "big", *_QUICK], "Invalid size"),
        (["generate", "a boat", "--model", "dal-e-3", *_QUICK], "Did you mean 'dall-e-3'?"),
        (["generate", "a boat", "-o", "boat.txt", *_QUICK], "must end in .png"),
        (["generate", "a boat", "-o", "boat", *_QUICK], "must end in .png"),
        (["generate", "a boat", "-o", "nowhere/boat.png", *_QUICK], "no folder 'nowhere'"),
        (["generate", "a boat", "--model", "prodia/flux-schnell"], "PRODIA_TOKEN is not set"),
        (["serve", "--config", "none.toml"], "none.toml: cannot be read"),
        (["models", "--config", "none.toml"], "none.toml: cannot be read"),
        (["check", "--config", "."], "cannot be read: Is a directory"),
        (["serve", "--host", "0.0.0.0"], "server.host: '0.0.0.0' can be reached by others"),  # noqa: S104 (refused)
        (["serve", "--host", "192.0.2.1", "--demo"], "server.host: '192.0.2.1' can be reached by others"),
    ],
)
def test_a_mistake_ends_with_status_2_and_one_line(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    status, out, err = _run_here(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("images-proxy")
    assert said in err


def test_a_mistake_shows_no_traceback_in_a_process_of_its_own() -> None:
    ended = _run("serve", "--port", "seven")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "'seven' is no port" in ended.stderr


def test_every_problem_of_a_configuration_has_its_line(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    config = home / "mine.toml"
    config.write_text('[server]\nprt = 1\nlog = "loud"\n[providers.acme]\n[timeouts]\nhold = -1\n', encoding="utf-8")
    status, out, err = _run_here(capsys, "serve", "--config", "mine.toml")
    assert (status, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("images-proxy: mine.toml: ") for line in lines)
    assert "images-proxy: mine.toml: server.prt: unknown key; did you mean 'port'?" in lines


@pytest.mark.parametrize("text", ["[server", "a = 1\na = 2", "x = \x00", "server = 5", "providers = []"])
def test_a_broken_configuration_is_one_line(capsys: pytest.CaptureFixture[str], home: Path, text: str) -> None:
    (home / "config.toml").write_text(text, encoding="utf-8")
    status, _, err = _run_here(capsys, "serve")
    assert status == 2
    assert err.count("\n") == 1
    assert err.startswith("images-proxy: config.toml: ")


def test_the_configuration_may_be_named_by_the_environment(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config.toml").write_text("[server]\nnonsense = 1\n", encoding="utf-8")
    monkeypatch.setenv("IMAGES_PROXY_CONFIG", "other.toml")
    _, _, err = _run_here(capsys, "models")
    assert err == "images-proxy: other.toml: cannot be read: No such file or directory\n"


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = _run("serve", "--demo", "--port", port)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert port in ended.stderr


def test_a_folder_that_cannot_be_made_is_one_line(home: Path) -> None:
    (home / "file").touch()
    (home / "config.toml").write_text(f"[images]\ndirectory = '{home / 'file' / 'inside'}'\n", encoding="utf-8")
    ended = _run("serve", "--port", "0")
    assert ended.returncode == 2
    assert ended.stderr == f"images-proxy: images.directory: {home / 'file' / 'inside'}: Not a directory\n"


def test_a_store_that_is_no_address_is_one_line(home: Path) -> None:
    (home / "config.toml").write_text("[images]\nstore = 'https://bucket'\n", encoding="utf-8")
    ended = _run("serve", "--port", "0")
    told = "images-proxy: config.toml: images.store: 'https://bucket' is no address as \"s3://bucket/prefix\"\n"
    assert (ended.returncode, ended.stderr) == (2, told)


def test_variables_of_a_store_that_make_no_sense_are_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config.toml").write_text("[images]\nstore = 's3://bucket'\n", encoding="utf-8")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "perhaps")
    ended = _run("serve", "--port", "0")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("images-proxy: images.store: the AWS_* variables make no sense")


# --- serve ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def demo(home: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The demo in a process of its own, and the lines it printed when it was ready."""
    (home / "config.toml").write_text("nonsense that the demo must not read", encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "proxy", "serve", *_QUICK, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process, [process.stdout.readline().rstrip("\n") for _ in range(6)]
    process.kill()
    process.communicate()


def test_the_demo_says_where_it_is_answers_and_stops(demo: tuple[subprocess.Popen[str], list[str]]) -> None:
    process, lines = demo
    ready = re.fullmatch(r"images-proxy (\S+) is ready\. Base URL: (http://127\.0\.0\.1:(\d+)/v1)", lines[0])
    assert ready is not None
    assert ready[1] == __version__
    assert int(ready[3]) > 0
    assert lines[1] == f"Providers: {', '.join(KINDS)} (all simulated)"
    assert {"dall-e-2", "dall-e-3", "gpt-image-1"} <= set(lines[2].removeprefix("Models: ").split(", "))
    command = shlex.split("\n".join(lines[4:]))
    assert command[:2] == ["curl", f"{ready[2]}/images/generations"]
    headers = dict([command[command.index("-H") + 1].split(": ")])
    body = command[command.index("-d") + 1].encode()
    with urllib.request.urlopen(urllib.request.Request(command[1], body, headers)) as answer:  # noqa: S310 (loopback)
        address = json.load(answer)["data"][0]["url"]
    with urllib.request.urlopen(address) as picture:  # noqa: S310 (loopback)
        assert picture.headers["content-type"].startswith("image/")
        assert len(picture.read()) > 1000
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert [json.loads(line)["status"] for line in log.splitlines() if "create_image" in line] == [200]


# --- generate ---------------------------------------------------------------------------------------------------------


def test_one_picture_is_written_and_never_over_another(home: Path) -> None:
    (home / "image-1.png").write_text("mine")
    ended = _run("generate", "a lighthouse at dawn", *_QUICK)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert re.fullmatch(r"image-2\.png \(\d+x\d+\)\n", ended.stdout)
    assert inspect_file(home / "image-2.png").format == "png"
    assert (home / "image-1.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "names", "picture_format"),
    [
        (["-o", "boat.png"], ["boat.png"], "png"),
        (["-o", "boat.JPG"], ["boat.JPG"], "jpeg"),
        (["-o", "deeper/boat.webp"], ["deeper/boat.webp"], "webp"),
        (["-n", "2", "-o", "boat.jpeg"], ["boat-1.jpeg", "boat-2.jpeg"], "jpeg"),
        (["-n", "2"], ["image-1.png", "image-2.png"], "png"),
        (["--model", "imagelabs/sdxl-turbo", "--size", "512x768", "-o", "a.png"], ["a.png"], "png"),
    ],
)
def test_pictures_are_written_as_asked(
    capsys: pytest.CaptureFixture[str], home: Path, arguments: list[str], names: list[str], picture_format: str
) -> None:
    (home / "deeper").mkdir()
    status, out, err = _run_here(capsys, "generate", "a boat", *arguments, *_QUICK)
    assert (status, err) == (0, "")
    assert [line.partition(" ")[0] for line in out.splitlines()] == names
    for name, line in zip(names, out.splitlines(), strict=True):
        facts = inspect_file(home / name)
        assert facts.format == picture_format
        assert line == f"{name} ({facts.width}x{facts.height})"
        assert "512x768" not in arguments or (facts.width, facts.height) == (512, 768)
    assert sorted(path.name for path in home.iterdir()) == sorted(["deeper", *(n for n in names if "/" not in n)])


@pytest.mark.parametrize(
    ("arguments", "there"),
    [(["-o", "one.png"], "one.png"), (["-n", "3", "-o", "one.png"], "one-2.png"), (["-o", "one.png"], "dangling")],
)
def test_a_named_file_is_overwritten_on_purpose_only(
    capsys: pytest.CaptureFixture[str], home: Path, arguments: list[str], there: str
) -> None:
    if there == "dangling":
        there = "one.png"
        (home / there).symlink_to(home / "elsewhere.png")
    else:
        (home / there).write_text("mine")
    status, out, err = _run_here(capsys, "generate", "a boat", *arguments, *_QUICK)
    assert (status, out) == (2, "")
    assert err.startswith(f"images-proxy: {there}: is there already")
    assert "--force" in err
    assert err.count("\n") == 1
    assert [path.name for path in home.iterdir()] == [there]
    status, out, err = _run_here(capsys, "generate", "a boat", *arguments, "--force", *_QUICK)
    assert (status, err) == (0, "")
    assert inspect_file(home / there).format == "png"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_is_never_overwritten(capsys: pytest.CaptureFixture[str], home: Path, force: list[str]) -> None:
    (home / "one.png").mkdir()
    status, out, err = _run_here(capsys, "generate", "a boat", "-o", "one.png", *force, *_QUICK)
    assert (status, out, err) == (2, "", "images-proxy: one.png: is a folder\n")


def test_a_file_that_comes_into_the_way_meanwhile_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def show(generation: Generation) -> None:
        (home / "one.png").write_text("mine")
        while not generation.done:  # noqa: ASYNC110 (as the command itself waits)
            await asyncio.sleep(0.01)

    monkeypatch.setattr(commands, "_show", show)
    status, out, _ = _run_here(capsys, "generate", "a boat", "-o", "one.png", *_QUICK)
    assert (status, out.partition(" ")[0]) == (0, "one-1.png")
    assert (home / "one.png").read_text() == "mine"
    assert inspect_file(home / "one-1.png").format == "png"


def test_a_provider_that_is_not_there_ends_with_status_1(
    capsys: pytest.CaptureFixture[str], home: Path, closed_port: int
) -> None:
    _point_at(home, closed_port)
    status, out, err = _run_here(capsys, "generate", "a boat", "--model", "imagelabs/sdxl-turbo")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("images-proxy: The provider 'imagelabs'")
    assert not (home / "image-1.png").exists()


# --- models and check -------------------------------------------------------------------------------------------------


def _point_at(home: Path, port: int) -> None:
    (home / "config.toml").write_text(
        f'[providers.imagelabs]\nbase_url = "http://127.0.0.1:{port}"\n', encoding="utf-8"
    )


def test_the_models_are_listed_with_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = _run_here(capsys, "models")
    assert (status, err) == (0, "")
    assert "dall-e-3" in out
    assert "imagelabs/sdxl-turbo" in out
    assert "sd_xl_base_1.0.safetensors [be9edd61]" in out
    assert "PRODIA_TOKEN is not set" in out
    assert "gpt-image-*" in out
    assert "not enabled" in out


def test_every_model_is_usable_in_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _run_here(capsys, "models", *_QUICK)
    assert status == 0
    assert "dall-e-3" in out
    assert "is not set" not in out
    assert not re.search(r"│ no +│", out)


def test_a_check_asks_every_provider_for_a_sign_of_life(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = _run_here(capsys, "check", *_QUICK)
    assert out.splitlines() == [f"{kind}: ok" for kind in KINDS]
    assert (status, err) == (0, "")


def test_a_check_tries_the_store(
    capsys: pytest.CaptureFixture[str], home: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "config.toml").write_text("[images]\nstore = 's3://bucket'\n", encoding="utf-8")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port}")
    status, out, _ = _run_here(capsys, "check")
    assert status == 1
    told = "putting an object in images.store fails: it cannot be reached, or does not work"
    assert out.splitlines()[-1] == f"images: {told}"


def test_the_demo_ignores_a_store(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "demo.toml").write_text("[images]\nstore = 's3://bucket'\n", encoding="utf-8")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "perhaps")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    status, out, err = _run_here(capsys, "generate", "a fox", *_QUICK, "--config", "demo.toml", "-o", "fox.png")
    assert (status, out.split()[0], err) == (0, "fox.png", "")


def test_a_check_tells_each_problem_in_a_line(
    capsys: pytest.CaptureFixture[str], home: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _point_at(home, closed_port)
    with (home / "config.toml").open("a") as file:
        file.write(f'[providers.prodia]\nbase_url = "http://127.0.0.1:{closed_port}/v2"\n')
    monkeypatch.setenv("PRODIA_TOKEN", "a-secret-token")
    status, out, err = _run_here(capsys, "check")
    assert (status, err) == (1, "")
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["prodia"].startswith("cannot be reached")
    assert lines["imagelabs"].startswith("cannot be reached")
    assert lines["prodia-v1"] == "not used (PRODIA_API_KEY is not set)"
    assert lines["prodia-legacy"] == "not used (not enabled)"
    assert "a-secret-token" not in out


def test_a_check_tells_a_route_that_leads_nowhere_once(
    capsys: pytest.CaptureFixture[str], home: Path, closed_port: int
) -> None:
    _point_at(home, closed_port)
    with (home / "config.toml").open("a") as file:
        file.write(
            "[server]\ndefault_routes = ['imagelabs/sdxl-turbo', 'imagelabs/sdxl']\n"
            "[models.mine]\nroutes = ['prodia/nothing']\n"
        )
    status, out, _ = _run_here(capsys, "check")
    assert status == 1
    assert [line for line in out.splitlines() if "leads to" in line] == [
        "server.default_routes: 'imagelabs/sdxl' leads to no model of that provider",
        "models.mine.routes: 'prodia/nothing' leads to no model of that provider",
    ]


def test_a_check_without_any_provider_fails(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    (home / "config.toml").write_text("[providers.imagelabs]\nenabled = false\n", encoding="utf-8")
    status, out, _ = _run_here(capsys, "check")
    assert status == 1
    assert out.endswith("no provider can be used\n")


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["serve"], ["generate"], ["models"], ["check"]])
def test_help_is_given(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    status, out, _ = _run_here(capsys, *command, "--help")
    assert status == 0
    assert out.startswith("usage: images-proxy")


def test_the_console_script_tells_the_version() -> None:
    script = Path(sys.executable).with_name("images-proxy")
    ended = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, f"images-proxy {__version__}\n")
