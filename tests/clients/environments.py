"""The clients' own environments below ``build/clients``: made once for each lock, used again while it is the same."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "clients"
_INSTALL_S = 600
_SILLYTAVERN = "1.19.0"
_SILLYTAVERN_SHA512 = (
    "44dbbb76e4567ff6095012c0ed428dcd3cb84742895eef9ef4aface961c138af"
    "86495e75250ea27dc49d22a153c475789097d492006a2763dbad22e5853976f9"
)


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
        # A lock names everything, so nothing is missed: but one leaves out what its client needs for other things.
        _run(*pip, "--require-hashes", "--no-deps", "-r", str(path))
        _mark(folder, path)
    return interpreter


def node(source: Path = HERE) -> Path:
    """Return a folder with what the lock in ``source`` names, and the scripts.

    Raises Unavailable, CalledProcessError.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Unavailable("node and npm are not installed")
    folder = BUILD / ("node" if source == HERE else source.name)
    lock = source / "package-lock.json"
    if not _is_made(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(source / name, folder / name)
        _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", cwd=folder)
        _mark(folder, lock)
    for script in HERE.glob("*.mjs"):
        shutil.copyfile(script, folder / script.name)
    return folder


def sillytavern() -> Path:
    """Return a folder with SillyTavern's source in ``package``, and with what its endpoints for pictures import.

    All that it requires would be half a gigabyte. Raises Unavailable, CalledProcessError.
    """
    folder = node(HERE / "sillytavern")
    if not (folder / "package").is_dir():
        _run("npm", "pack", "--silent", f"sillytavern@{_SILLYTAVERN}", cwd=folder)
        archive = folder / f"sillytavern-{_SILLYTAVERN}.tgz"
        if hashlib.sha512(archive.read_bytes()).hexdigest() != _SILLYTAVERN_SHA512:
            raise subprocess.SubprocessError("SillyTavern's archive is another than the one that was locked")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        archive.unlink()
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
