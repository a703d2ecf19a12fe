"""The commands as a user types them: what they print, what they write, how they end."""

import asyncio
import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import termios
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from proxy import __version__
from proxy.cli import main
from proxy.commands import generate
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
        (["generate"], "PROMPT is missing"),
        (["generate", "--image", "a.png", "a boat", *_QUICK], "PROMPT is missing; write it before --image"),
        (["generate", "a boat", "--image", "none.png", *_QUICK], "none.png: No such file"),
        (["generate", "a boat", "--image", ".", *_QUICK], ".: Is a directory"),
        (["generate", "a boat", "--image", "config.toml", *_QUICK], "config.toml: The file in 'image' cannot be used"),
        (["generate", "a boat", "--mask", "boat.png", *_QUICK], "Missing required parameter: 'image'"),
        (["generate", "a boat", "--image", "boat.png", "--mask", "small.png", *_QUICK], "The mask must have the size"),
        (["generate", "a boat", "--image", *["boat.png"] * 17, *_QUICK], "At most 16 pictures"),
        (["generate", "a boat", "--seed", "-2", *_QUICK], "'seed'"),
        (["generate", "a boat", "--steps", "151", *_QUICK], "'steps'"),
        (["generate", "a boat", "--model", "xyz", *_QUICK], "'images-proxy models' lists the known ones"),
        (["generate", "a boat", "--model", "xyz", "--dry-run", *_QUICK], "'images-proxy models' lists the known ones"),
        (["generate", "a boat", "-o", "nowhere/", *_QUICK], "nowhere/: there is no such folder"),
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
    capsys: pytest.CaptureFixture[str], home: Path, arguments: Sequence[str], said: str
) -> None:
    Image.new("RGB", (512, 512)).save(home / "boat.png")
    Image.new("RGB", (64, 64)).save(home / "small.png")
    (home / "config.toml").touch()
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
    yield process, [process.stdout.readline().rstrip("\n") for _ in range(7)]
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
    command = shlex.split("\n".join(lines[4:6]))
    assert command[:2] == ["curl", f"{ready[2]}/images/generations"]
    headers = dict([command[command.index("-H") + 1].split(": ")])
    body = command[command.index("-d") + 1].encode()
    with urllib.request.urlopen(urllib.request.Request(command[1], body, headers)) as answer:  # noqa: S310 (loopback)
        address = json.load(answer)["data"][0]["url"]
    with urllib.request.urlopen(address) as picture:  # noqa: S310 (loopback)
        assert picture.headers["content-type"].startswith("image/")
        assert len(picture.read()) > 1000
    admin = {"authorization": f"Bearer {lines[6].removeprefix('Admin key, made for this run: ')}"}
    told = urllib.request.Request(f"{ready[2]}/usage", None, admin)  # noqa: S310 (loopback)
    with urllib.request.urlopen(told) as usage:  # noqa: S310 (loopback)
        assert json.load(usage)["total"]["pictures"] == 1
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in log
    assert [json.loads(line)["status"] for line in log.splitlines() if "create_image" in line] == [200]


_SECOND = (
    "Not used: second. To use it, set enabled = true in [providers.second] and set PRODIA_API_KEY in the environment.\n"
)


def test_the_providers_that_are_not_used_are_told_with_how_to_enable_them(home: Path) -> None:
    (home / "config.toml").write_text('[providers.second]\nkind = "prodia-v1"\nenabled = false\n', encoding="utf-8")
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(7)]
        process.send_signal(signal.SIGINT)
    assert lines[1] == "Providers: imagelabs\n"
    assert lines[2:6] == [
        "Not used: prodia. To use it, set PRODIA_TOKEN in the environment.\n",
        "Not used: prodia-v1. To use it, set PRODIA_API_KEY in the environment.\n",
        "Not used: prodia-legacy. To use it, set enabled = true in [providers.prodia-legacy].\n",
        _SECOND,
    ]
    assert lines[6].startswith("Models: ")


# --- generate ---------------------------------------------------------------------------------------------------------


def test_one_picture_is_written_and_never_over_another(home: Path) -> None:
    (home / "image-1.png").write_text("mine")
    ended = _run("generate", "a lighthouse at dawn", *_QUICK)
    assert ended.returncode == 0
    assert re.fullmatch(r"image-2\.png \(\d+x\d+, seed \d+\)\n", ended.stdout)
    assert re.fullmatch(r"made by prodia/\S+ in \d+\.\d s, \$0\.0025 \(provider\)\n", ended.stderr)
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
        (["-n", "2", "-o", "deeper"], ["deeper/image-1.png", "deeper/image-2.png"], "png"),
        (["-o", "deeper/"], ["deeper/image-1.png"], "png"),
        (["--model", "imagelabs/sdxl-turbo", "--size", "512x768", "-o", "a.png"], ["a.png"], "png"),
    ],
)
def test_pictures_are_written_as_asked(
    capsys: pytest.CaptureFixture[str], home: Path, arguments: list[str], names: list[str], picture_format: str
) -> None:
    (home / "deeper").mkdir()
    status, out, err = _run_here(capsys, "generate", "a boat", *arguments, *_QUICK)
    assert (status, err.startswith("made by ")) == (0, True)
    assert [line.partition(" ")[0] for line in out.splitlines()] == names
    for name, line in zip(names, out.splitlines(), strict=True):
        facts = inspect_file(home / name)
        assert facts.format == picture_format
        assert line.startswith(f"{name} ({facts.width}x{facts.height}, seed ")
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
    assert status == 0
    assert inspect_file(home / there).format == "png"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_is_never_overwritten(capsys: pytest.CaptureFixture[str], home: Path, force: list[str]) -> None:
    (home / "one.png").mkdir()
    status, out, err = _run_here(capsys, "generate", "a boat", "-o", "one.png", *force, *_QUICK)
    assert (status, out.partition(" ")[0]) == (0, "one.png/image-1.png")
    (home / "two-1.png").mkdir()
    status, out, err = _run_here(capsys, "generate", "a boat", "-n", "2", "-o", "two.png", *force, *_QUICK)
    assert (status, out, err) == (2, "", "images-proxy: two-1.png: is a folder\n")


def test_what_is_asked_for_reaches_the_provider(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--seed", "7", "--steps", "3", "--negative", "rain", "-n", "2", "--size", "1792x1024"]
    status, out, err = _run_here(capsys, "generate", "a boat", "--model", "imagelabs/sdxl-turbo", *asked, *_QUICK)
    assert status == 0
    assert [line.partition(" ")[2] for line in out.splitlines()] == ["(1536x880, seed 7)", "(1536x880, seed 8)"]
    made, *changes = err.splitlines()
    assert made.startswith("made by imagelabs/sdxl-turbo in ")
    assert changes == ["changed: size=1792x1024->1536x880", "left out: steps"]


def test_the_route_that_was_passed_over_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = _run_here(capsys, "generate", "a boat [fault:busy:1:30]", *_QUICK)
    assert status == 0
    made, passed_over, *_ = err.splitlines()
    assert made.startswith("made by imagelabs/sdxl-turbo in ")
    assert passed_over == "passed over: prodia/inference.flux-fast.schnell.txt2img.v2 (provider_busy)"


def test_what_several_pictures_cost_is_told_together(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    (home / "mine.toml").write_text('[providers.imagelabs]\nprices = { "sdxl-turbo" = 0.125 }\n', encoding="utf-8")
    asked = ["--model", "imagelabs/sdxl-turbo", "-n", "3", "--config", "mine.toml", *_QUICK]
    _, _, err = _run_here(capsys, "generate", "a boat", *asked)
    assert re.fullmatch(r"made by imagelabs/sdxl-turbo in \d+\.\d s, \$0\.375 \(config\)\n", err)
    _, out, _ = _run_here(capsys, "generate", "a boat", *asked, "--dry-run")
    assert "   1152x896, $0.125 a picture (config), about 8.0 s" in out.splitlines()


@pytest.mark.parametrize(
    ("more", "model"),
    [([], "inference.flux-2.klein.4b.img2img.v1"), (["--mask", "hole.png"], "inference.sdxl.inpainting.v1")],
)
def test_pictures_are_edited(capsys: pytest.CaptureFixture[str], home: Path, more: list[str], model: str) -> None:
    Image.new("RGB", (512, 512), "teal").save(home / "boat.png")
    Image.new("RGBA", (512, 512)).save(home / "hole.png")
    status, out, err = _run_here(capsys, "generate", "a hat", "--image", "boat.png", *more, "-o", "hat.png", *_QUICK)
    assert (status, out.partition(" ")[0]) == (0, "hat.png")
    assert err.startswith(f"made by prodia/{model} in ")
    assert inspect_file(home / "hat.png").format == "png"


def test_a_picture_over_the_limit_is_not_read(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    (home / "mine.toml").write_text("[server]\nmax_upload = 1024\n", encoding="utf-8")
    (home / "boat.png").write_bytes(b"x" * 1025)
    status, _, err = _run_here(capsys, "generate", "a hat", "--image", "boat.png", "--config", "mine.toml", *_QUICK)
    assert (status, err) == (2, "images-proxy: boat.png: is larger than 1024 bytes (server.max_upload)\n")


def test_a_dry_run_tells_what_would_be_done(capsys: pytest.CaptureFixture[str], home: Path, closed_port: int) -> None:
    _point_at(home, closed_port)  # nobody is there to be asked
    arguments = ["--model", "imagelabs/sdxl-turbo", "-n", "3", "--size", "1792x1024", "--steps", "3", "--dry-run"]
    status, out, err = _run_here(capsys, "generate", "a boat", *arguments)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "Nothing was bought. It would be 3 pictures, made by the first of these that takes the job:",
        "1. imagelabs/sdxl-turbo",
        "   1536x880, $0 a picture (table), about 8.0 s",
        "   changed: size=1792x1024->1536x880",
        "   left out: steps",
    ]
    assert [path.name for path in home.iterdir()] == ["config.toml"]


def test_a_file_that_comes_into_the_way_meanwhile_is_not_overwritten(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def show(generation: Generation) -> None:
        (home / "one.png").write_text("mine")
        while not generation.done:  # noqa: ASYNC110 (as the command itself waits)
            await asyncio.sleep(0.01)

    monkeypatch.setattr(generate, "_show", show)
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


def _on_a_terminal(*arguments: str, columns: int) -> str:
    """Run a command in a terminal of its own and return what it shows, without colours."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (40, columns))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-W", "error", "-m", "proxy", *arguments]
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment | {"TERM": "xterm"}) as process:
        os.close(its)
        shown = b""
        try:
            while piece := os.read(ours, 65_536):
                shown += piece
        except OSError:  # how Linux reports that the other end was closed
            pass
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


def test_the_models_are_readable_on_80_columns() -> None:
    shown = _on_a_terminal("models", columns=80).splitlines()
    assert max(map(len, shown)) <= 80
    for whole in (
        "gpt-image-2.5-sunburst",
        "prodia/inference.flux-fast.schnell.txt2img.v2",
        "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]",
        "  not used: PRODIA_TOKEN is not set",
        "  prodia-legacy: 65; not used: not enabled",
        "'images-proxy models PROVIDER/' lists them.",
    ):
        assert any(whole in line for line in shown), whole
    assert shown[0].split() == ["model", "usable", "made", "by", "the", "first", "of"]
    assert not any("…" in line for line in shown)


def _run_here_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, list[str]]:
    """Run a command inside this process, with a standard output that says it is a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, out, _ = _run_here(capsys, *arguments)
    return status, [line.rstrip() for line in out.splitlines()]


def test_with_a_filter_a_terminal_shows_the_providers_own_models(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, (heading, *rows) = _run_here_on_a_terminal(capsys, monkeypatch, "models", "prodia/*klein*")
    assert (status, heading.split()) == (0, ["model", "usable", "why", "not"])
    assert len(rows) == 3
    assert rows[0].split(maxsplit=2) == [
        "prodia/inference.flux-2.klein.4b.txt2img.v1",
        "no",
        "PRODIA_TOKEN is not set",
    ]


def test_without_a_filter_a_terminal_counts_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, lines = _run_here_on_a_terminal(capsys, monkeypatch, "models")
    assert status == 0
    assert lines[2].split() == ["dall-e-2", "not", "used:", "PRODIA_TOKEN", "is", "not", "set"]
    assert "  imagelabs: 1" in lines
    assert sum("dall-e-3" in line for line in lines) == 1


def test_in_a_pipe_each_model_is_a_line_with_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = _run_here(capsys, "models")
    assert (status, err) == (0, "")
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}
    usable, routes, why = rows["dall-e-3"]
    assert usable == "yes"
    assert "imagelabs/sdxl-turbo" in routes.split(", ")
    assert why == "prodia: PRODIA_TOKEN is not set; prodia-v1: PRODIA_API_KEY is not set"
    assert "gpt-image-*" in rows
    assert rows["imagelabs/sdxl-turbo"] == ["yes", "imagelabs/sdxl-turbo", ""]
    native = "prodia-legacy/dreamshaper_8.safetensors [9d40847d]"
    assert rows[native] == ["no", native, "prodia-legacy: not enabled"]


def test_every_model_is_usable_in_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = _run_here(capsys, "models", *_QUICK)
    assert status == 0
    assert {line.split("\t")[1] for line in out.splitlines()} == {"yes"}
    assert "is not set" not in out


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("DALL-E", ["dall-e-3", "dall-e-2", "dall-e-*"]),
        ("dall-e-?", ["dall-e-3", "dall-e-2", "dall-e-*"]),
        ("sdxl-turbo", ["imagelabs/sdxl-turbo"]),
        ("[9d40847d]", None),
    ],
)
def test_a_filter_finds_names(capsys: pytest.CaptureFixture[str], wanted: str, names: list[str] | None) -> None:
    status, out, _ = _run_here(capsys, "models", wanted, "--json")
    assert status == 0
    found = [model["name"] for model in json.loads(out)["models"]]
    assert found
    assert found == names if names else all("[9d40847d]" in name for name in found)


def test_models_can_be_read_by_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = _run_here(capsys, "models", "dall-e-3", "--json")
    (model,) = json.loads(out)["models"]
    assert (model["name"], model["usable"]) == ("dall-e-3", True)
    by_route = {route["route"]: (route["usable"], route["why_not"]) for route in model["routes"]}
    assert by_route["imagelabs/sdxl-turbo"] == (True, None)
    assert by_route["prodia/inference.flux-fast.schnell.txt2img.v2"] == (False, "PRODIA_TOKEN is not set")


def test_a_filter_that_finds_nothing_ends_with_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    ended = _run_here(capsys, "models", "nothing-has-this-name")
    assert ended == (1, "", "images-proxy: no model's name contains or matches 'nothing-has-this-name'\n")


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
    assert (status, out.split()[0]) == (0, "fox.png")
    assert "images.store" not in err


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
