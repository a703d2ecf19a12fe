"""What is shipped: locked with hashes, one version everywhere, nothing that only works here."""

import re
import tomllib
from pathlib import Path

import pytest

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
