"""``generate``: pictures from the command line, through the same engine as the service."""

import argparse
import asyncio
import os
import sys
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from proxy.commands.arguments import add_config, add_demo
from proxy.config import Configuration
from proxy.engine import Engine
from proxy.errors import Failure
from proxy.generations.record import Generation
from proxy.pictures.store import PictureStore

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_REDRAW_S = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``generate``."""
    parser.set_defaults(run=run)
    add_config(parser)
    add_demo(parser)
    parser.add_argument("prompt", metavar="PROMPT")
    parser.add_argument("--model", metavar="M", help="public name or provider/model")
    parser.add_argument("--size", metavar="S", help="WIDTHxHEIGHT")
    parser.add_argument("-n", type=int, default=1, metavar="N", help="how many, 1 to 10")
    parser.add_argument("-o", "--output", metavar="FILE", help="file to write (default: image.png, numbered)")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")


async def run(options: argparse.Namespace, configuration: Configuration) -> int:
    """Make pictures through the same engine as the service and write them to files."""
    async with AsyncExitStack() as stack:
        output = Path(options.output or "image.png")
        picture_format = _FORMATS.get(output.suffix.lower())
        if picture_format is None:
            sys.stderr.write(f"images-proxy: {output}: the name must end in {', '.join(_FORMATS)}\n")
            return 2
        if not output.parent.is_dir():
            sys.stderr.write(f"images-proxy: {output}: there is no folder '{output.parent}'\n")
            return 2
        values = {"prompt": options.prompt, "model": options.model, "size": options.size, "n": options.n}
        engine = Engine(configuration)
        try:
            resolved = engine.resolve({**values, "output_format": picture_format, "response_format": "b64_json"})
        except Failure as failure:
            sys.stderr.write(f"images-proxy: {failure.message}\n")
            return 2
        if problem := _in_the_way(_names(output, options), force=options.force):
            sys.stderr.write(f"images-proxy: {problem}\n")
            return 2
        await engine.open()
        stack.push_async_callback(engine.close)
        generation = engine.generations.join(resolved).generation
        await _show(generation)
        if generation.failure is not None:
            sys.stderr.write(f"images-proxy: {generation.failure.message}\n")
            return 1
        for picture, name in zip(generation.pictures, _names(output, options), strict=True):
            if picture.stored is not None:
                path = await _write(engine.store, picture.stored.name, name, force=options.force)
                sys.stdout.write(f"{path} ({picture.width}x{picture.height})\n")
        return 0


async def _show(generation: Generation) -> None:
    """Draw the generation's progress until it ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)  # standard output holds only the names of the files, for scripts
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting", total=len(generation.progress))
        while not generation.done:
            states = [progress.state for progress in generation.progress]
            fractions = [1.0 if p.state == "done" else p.fraction or 0.0 for p in generation.progress]
            bar.update(task, completed=sum(fractions), description=next((s for s in states if s != "done"), "done"))
            await asyncio.sleep(_REDRAW_S)


def _names(output: Path, options: argparse.Namespace) -> list[Path]:
    """Return the files to write: the named one, numbered if there are several; without a name, only new files."""
    if options.output and options.n == 1:
        return [output]
    names: list[Path] = []
    number = 0
    while len(names) < options.n:
        number += 1
        path = output.with_stem(f"{output.stem}-{number}")
        if options.output or not os.path.lexists(path):
            names.append(path)
    return names


def _in_the_way(paths: list[Path], *, force: bool) -> str:
    """Return what is wrong with the files to write, empty if nothing is; checked before anything is bought."""
    for path in paths:
        if path.is_dir():
            return f"{path}: is a folder"
        if os.path.lexists(path) and not force:
            return f"{path}: is there already; choose another name with -o, or overwrite it with --force"
    return ""


async def _write(store: PictureStore, name: str, path: Path, *, force: bool) -> Path:
    """Copy a picture to ``path`` and return its path: another one if that file has come to exist meanwhile."""
    opened = await store.open(name)
    target, number = path, 0
    while True:
        try:
            # "x" checks and creates in one step. The picture is paid for, so a file in the way must not cost it.
            file = target.open("wb" if force else "xb")
        except FileExistsError:
            number += 1
            target = path.with_stem(f"{path.stem}-{number}")
        else:
            break
    with file:
        async with aclosing(opened.pieces) as pieces:
            async for piece in pieces:
                file.write(piece)
    return target
