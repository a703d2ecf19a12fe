"""The clients' own environments below ``build/clients``: made once for each lock, used again while it is the same."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "clients"
_INSTALL_S = 600


class Unavailable(Exception):
    """A tool that the clients need is not on this machine."""


def environment(**more: str) -> Mapping[str, str]:
    """Return the variables for a client: no proxy for loopback, and no setting of this machine's own."""
    strange = re.compile(r"(?i)(?:.*_proxy|OPENAI_.*|AZURE_OPENAI_.*|IMAGES_PROXY_.*|PYTHONPATH)\Z")
    kept = {name: value for name, value in os.environ.items() if not strange.match(name)}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def python(lock: str) -> Path:
    """Return the interpreter of an environment with what ``locks/{lock}.lock`` names. Raises CalledProcessError."""
    path = HERE / "locks" / f"{lock}.lock"
    folder = BUILD / lock
    interpreter = folder / "bin" / "python"
    if not _is_made(folder, path):
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        pip = [str(interpreter), "-m", "pip", "-q", "--disable-pip-version-check", "install"]
        _run(*pip, "--require-hashes", "-r", str(path))
        _mark(folder, path)
    return interpreter


def node() -> Path:
    """Return a folder with the JavaScript clients and their scripts. Raises Unavailable, CalledProcessError."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unavailable("node and npm are not installed")
    folder = BUILD / "node"
    lock = HERE / "package-lock.json"
    if not _is_made(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(HERE / name, folder / name)
        _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", cwd=folder)
        _mark(folder, lock)
    for script in HERE.glob("*.mjs"):
        shutil.copyfile(script, folder / script.name)
    return folder


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=_INSTALL_S, stdout=subprocess.DEVNULL)


def _is_made(folder: Path, lock: Path) -> bool:
    stamp = folder / ".lock-digest"
    return stamp.is_file() and stamp.read_text() == _digest(lock)


def _mark(folder: Path, lock: Path) -> None:
    (folder / ".lock-digest").write_text(_digest(lock))


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()
