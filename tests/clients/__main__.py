"""Run the real clients against two demos, one of which asks for a key, and print what was checked with which version.

``python -m tests.clients [NAME …]`` runs all, or those whose name begins with one of the given.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.clients.checks import KEY, mask, picture
from tests.clients.environments import ROOT, Unavailable, environment, node, python, sillytavern

_SCRIPT_S = 300
_SPEED = "20"


@dataclass(frozen=True, slots=True)
class Row:
    """One check's outcome: ``problem`` is empty when all is well; ``skipped`` says why it was not run."""

    client: str
    version: str
    checked: str
    problem: str = ""
    skipped: str = ""


def _of_python(lock: str, module: str) -> Callable[[], tuple[Sequence[str], Path]]:
    return lambda: ([str(python(lock)), "-m", f"tests.clients.{module}"], ROOT)


def _of_node(script: str, release: str) -> Callable[[], tuple[Sequence[str], Path]]:
    def command() -> tuple[Sequence[str], Path]:
        folder = node()
        return ["node", script, release], folder

    return command


def _sillytavern() -> tuple[Sequence[str], Path]:
    folder = sillytavern()
    return ["node", "sillytavern.mjs", ""], folder


def _curl() -> tuple[Sequence[str], Path]:
    if shutil.which("curl") is None:
        raise Unavailable("curl is not installed")
    return [sys.executable, "-m", "tests.clients.curl"], ROOT


SCRIPTS: dict[str, Callable[[], tuple[Sequence[str], Path]]] = {
    "openai-python 3": _of_python("openai-3", "openai_python"),
    "openai-python 2": _of_python("openai-2", "openai_python"),
    "openai-python 1": _of_python("openai-1", "openai_python"),
    "openai-node 7": _of_node("openai_node.mjs", "openai"),
    "openai-node 6": _of_node("openai_node.mjs", "openai-6"),
    "ai-sdk 6": _of_node("ai_sdk.mjs", "6"),
    "ai-sdk 7": _of_node("ai_sdk.mjs", "7"),
    "agents-js": _of_node("agents.mjs", "openai"),
    "responses": _of_python("responses", "responses"),
    "frameworks": _of_python("frameworks", "frameworks"),
    "sillytavern": _sillytavern,
    "open-webui": _of_python("open-webui", "open_webui"),
    "image-generation-mcp": _of_python("image-generation-mcp", "image_generation_mcp"),
    "curl": _curl,
}
"""The clients' scripts: each prepares its environment and returns the command that runs it, and where."""


@contextmanager
def demo(**more: str) -> Iterator[str]:
    """Run the service's demo and yield its origin."""
    command = [sys.executable, "-m", "proxy", "serve", "--demo", "--demo-speed", _SPEED, "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            greeting = process.stdout.readline()
            yield greeting.split()[-1].removesuffix("/v1")
        finally:
            process.terminate()


def run(name: str, origins: Sequence[str], folder: str) -> list[Row]:
    """Run one script and return its rows."""
    try:
        command, place = SCRIPTS[name]()
        done = subprocess.run(
            [*command, *origins, folder],
            cwd=place,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=_SCRIPT_S,
            check=False,
        )
    except Unavailable as reason:
        return [Row(name, "", "", skipped=str(reason))]
    except subprocess.SubprocessError as error:
        return [Row(name, "", "", problem=f"{type(error).__name__}: {error}"[:200])]
    rows = [Row(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"client"')]
    if done.returncode or not rows:
        rows.append(Row(name, "", "the whole script", problem=f"exit status {done.returncode}"))
    if any(row.problem for row in rows):
        sys.stderr.write(f"\n--- {name}\n{done.stderr}\n")
    return rows


def main(wanted: Sequence[str]) -> int:
    """Run the scripts and print the table; return the exit status."""
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="images-proxy-clients-")))
        (folder / "image.png").write_bytes(picture())
        (folder / "mask.png").write_bytes(mask())
        origins = [stack.enter_context(demo()), stack.enter_context(demo(IMAGES_PROXY_KEYS=KEY))]
        for name in SCRIPTS:
            if not wanted or name.startswith(tuple(wanted)):
                rows += run(name, origins, str(folder))
    table = Table("client", "version", "what was checked", "ok")
    for row in rows:
        outcome = f"skipped: {row.skipped}" if row.skipped else row.problem or "yes"
        table.add_row(row.client, row.version, row.checked, outcome)
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)
    failed = sum(bool(row.problem) for row in rows)
    skipped = sum(bool(row.skipped) for row in rows)
    sys.stdout.write(f"{len(rows) - failed - skipped} passed, {failed} failed, {skipped} skipped\n")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
