"""What is shipped: locked with hashes, one version everywhere, nothing that only works here."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import starlette

from proxy import __version__

_ROOT = Path(__file__).parents[1]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_LOCKS = ["requirements.lock", "requirements-dev.lock"]
_PINNED = re.compile(r"([a-z0-9][a-z0-9._-]*)==(\S+)( ; .+)?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def _locked(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Return each requirement's version and hashes; any line that is neither, nor a comment, fails."""
    text = (_ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    locked: dict[str, tuple[str, list[str]]] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement, *hashes = re.split(r"\s+(?=--)", line.strip())
        pinned = _PINNED.fullmatch(requirement.strip())
        assert pinned, line
        assert all(_HASH.fullmatch(word) for word in hashes), requirement
        locked[pinned[1]] = (pinned[2], hashes)
    return locked


def _named(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return match[0].lower().replace("_", "-")


@pytest.mark.parametrize("lock", _LOCKS)
def test_every_locked_requirement_has_hashes(lock: str) -> None:
    locked = _locked(lock)
    assert len(locked) > 20
    assert [name for name, (_, hashes) in locked.items() if not hashes] == []


@pytest.mark.parametrize("lock", _LOCKS)
def test_a_lock_holds_no_addresses(lock: str) -> None:
    text = (_ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert " @ " not in text
    assert not re.search(r"^\s*-(?!-hash)", text, re.MULTILINE)
    assert "index-url" not in text


def test_everything_the_project_needs_is_locked() -> None:
    needed = {_named(requirement) for requirement in _PROJECT["dependencies"]}
    assert needed <= set(_locked("requirements.lock"))
    needed |= {_named(requirement) for requirement in _PROJECT["optional-dependencies"]["dev"]}
    assert needed <= set(_locked("requirements-dev.lock"))


def test_both_locks_agree() -> None:
    service, development = (_locked(lock) for lock in _LOCKS)
    assert service.items() <= development.items()


def test_the_version_is_the_same_everywhere() -> None:
    changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    top = re.search(r"^## \[?(\d+\.\d+\.\d+\S*?)\]?(?: |$)", changelog, re.MULTILINE)
    assert top is not None
    assert _PROJECT["version"] == __version__ == top[1]


def test_the_names_are_the_designs() -> None:
    assert _PROJECT["name"] == "images-proxy"
    assert _PROJECT["scripts"] == {"images-proxy": "proxy.cli:main"}
    assert _PROJECT["requires-python"] == ">=3.11"


def test_everything_beside_the_code_is_shipped() -> None:
    settings = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["proxy"]
    package = _ROOT / "proxy"
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    beside = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert beside <= shipped


def test_the_repository_has_what_a_convention_puts_there() -> None:
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "Makefile", "Dockerfile", "config.example.toml"):
        assert (_ROOT / name).is_file(), name


def test_only_the_uvicorn_that_the_server_was_written_for_is_allowed() -> None:
    pin = next(each for each in _PROJECT["dependencies"] if each.startswith("uvicorn"))
    locked = re.search(
        r"^uvicorn==(\d+)\.(\d+)", (_ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert locked is not None
    major, minor = map(int, locked.groups())
    assert pin == f"uvicorn>={major}.{minor},<{major}.{minor + 1}"


# --- installed ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pipx, uvx and the container install, built from a copy, since building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    shutil.copytree(_ROOT / "proxy", tree / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(_ROOT / name, tree)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True, timeout=60)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("proxy/")}
    paths = (path for path in (_ROOT / "proxy").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert held == {str(path.relative_to(_ROOT)) for path in paths}


def test_the_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    # Offline: what it depends on is borrowed from this environment.
    borrowed = Path(starlette.__file__).parents[1]
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    by_pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index"]
    by_uv = ["uv", "pip", "install", "--python", str(python), "--offline"]
    installer = by_pip if importlib.util.find_spec("pip") else by_uv
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PRODIA_TOKEN")}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(*installer, "--no-deps", str(wheel))
    assert run(str(python), "-c", "import proxy; print(proxy.__file__)").strip() == str(site / "proxy/__init__.py")
    command = str(tmp_path / "venv/bin/images-proxy")
    assert run(command, "--version") == f"images-proxy {__version__}\n"
    made = run(command, "generate", "a boat", "--demo", "--demo-speed", "100", "-o", "boat.png")
    assert made.startswith("boat.png (")
    assert (tmp_path / "boat.png").read_bytes().startswith(b"\x89PNG")


# --- make -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on the PATH")
@pytest.mark.parametrize(("uv", "installs"), [("", "-m pip "), ("/usr/bin/true", "/usr/bin/true pip install ")])
@pytest.mark.parametrize(("goal", "lock"), [("run", "requirements.lock"), ("test", "requirements-dev.lock")])
def test_make_says_what_it_does_and_installs_only_what_is_locked(
    tmp_path: Path, uv: str, installs: str, goal: str, lock: str
) -> None:
    for name in ("Makefile", "pyproject.toml", *_LOCKS):
        shutil.copy(_ROOT / name, tmp_path)
    plan = ["make", "-n", goal, f"UV={uv}", f"PYTHON={sys.executable}"]
    done = subprocess.run(plan, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    told = re.findall(r'^echo "(.*)"$', done.stdout, re.MULTILINE)
    making, installing, itself, *_ = told
    assert making.startswith("Making a virtual environment in .venv with " + ("uv" if uv else "pip"))
    assert installing.endswith("checked by their hashes …" if uv else "(up to a minute) …")
    assert itself == "Installing images-proxy itself …"
    commands = [line for line in done.stdout.splitlines() if " install " in line and not line.startswith("echo")]
    assert len(commands) == 2
    assert all(installs in command for command in commands)
    assert f"--require-hashes -r {lock}" in commands[0]
    assert "--no-deps --no-build-isolation -e ." in commands[1]
