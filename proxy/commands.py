"""The commands besides ``serve``: generate, models, check."""

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from proxy.config import Configuration
from proxy.engine import Engine
from proxy.errors import Failure, NotConfigured, UnknownModel
from proxy.generations.record import Generation
from proxy.pictures.store import PictureStore

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_REDRAW_S = 0.1


async def generate(options: argparse.Namespace, configuration: Configuration) -> int:
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


async def models(options: argparse.Namespace, configuration: Configuration) -> int:  # noqa: ARG001 (a command's signature)
    """Print every public name, its routes, and whether it can be used."""
    engine = Engine(configuration)
    table = Table("model", Column("routes", overflow="fold"), "usable", Column("skipped", overflow="fold"))
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, settings in engine.routing.configured():
        alike.setdefault(settings.routes, []).append(name)
    for routes, names in alike.items():
        reasons = {route: engine.routing.why_unusable(route) for route in routes}
        usable = any(not reason for reason in reasons.values())
        why = sorted({f"{route.partition('/')[0]}: {reason}" for route, reason in reasons.items() if reason})
        table.add_row(*map(Text, ("\n".join(names), "\n".join(routes), "yes" if usable else "no", "\n".join(why))))
    for name, catalogue in engine.catalogues.items():
        usable = not catalogue.why_not
        models = f"{len(catalogue.models)} models"
        table.add_row(*map(Text, (f"{name}/…", models, "yes" if usable else "no", catalogue.why_not)))
    # In a pipe rich assumes 80 columns, which would fold every route.
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


async def check(options: argparse.Namespace, configuration: Configuration) -> int:  # noqa: ARG001 (a command's signature)
    """Validate the configuration (by loading it), check that each usable provider answers, and try the store."""
    async with AsyncExitStack() as stack:
        engine = Engine(configuration)
        stack.push_async_callback(engine.close)
        await engine.open()
        problems = 0
        for name in engine.settings.providers:
            why_not = engine.configuration.why_not(name)
            if why_not:
                sys.stdout.write(f"{name}: not used ({why_not})\n")
                continue
            problem = await engine.probe(name)
            problems += bool(problem)
            sys.stdout.write(f"{name}: {problem or 'ok'}\n")
        problem = await engine.store.probe()
        for line in [*_dead_ends(engine), *([f"images: {problem}"] if problem else [])]:
            problems += 1
            sys.stdout.write(f"{line}\n")
        if not engine.runtimes:
            sys.stdout.write("no provider can be used\n")
        return 1 if problems or not engine.runtimes else 0


def _dead_ends(engine: Engine) -> list[str]:
    """Return a line for each configured route, and for the default model, that can never be used."""
    lines = [
        f"{key}: '{route}' leads to no model of that provider"
        for key, routes in engine.settings.routes.items()
        for route in routes
        if route.partition("/")[2] not in engine.catalogues[route.partition("/")[0]].by_name
    ]
    default = engine.settings.server.default_model
    try:
        engine.routing.resolve(default)
    except UnknownModel as unknown:
        lines.append(f"server.default_model: {unknown.message}")
    except NotConfigured:
        pass
    return lines


COMMANDS: dict[str, Callable[[argparse.Namespace, Configuration], Coroutine[Any, Any, int]]] = {
    "generate": generate,
    "models": models,
    "check": check,
}
