"""``generate``: pictures from the command line, through the same engine as the service."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from proxy.accounts.accounts import COMMAND_LINE, Caller
from proxy.api.uploads import complete, picture_of, readable_mask
from proxy.background import load_learned
from proxy.commands.arguments import Mistake, add_config, add_demo
from proxy.config import Configuration
from proxy.dollars import decimal_text
from proxy.engine import Engine
from proxy.errors import Failure
from proxy.generations.record import Generation
from proxy.generations.results import Picture
from proxy.pictures.store import PictureStore
from proxy.providers.boundary import InputPicture, Operation
from proxy.requests.resolve import ResolvedRequest

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
_USUAL_NAME = "image.png"
_REDRAW_S = 0.1
_CALLER = Caller(COMMAND_LINE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``generate``."""
    parser.set_defaults(run=run)
    add_config(parser)
    add_demo(parser)
    parser.usage = "%(prog)s PROMPT [OPTION ...]"
    # Optional to argparse: after --image it would only say that a prompt is missing which the user did type.
    parser.add_argument("prompt", metavar="PROMPT", nargs="?", help="what the picture should show")
    parser.add_argument("--model", metavar="M", help="public name or provider/model")
    parser.add_argument("--size", metavar="S", help="WIDTHxHEIGHT")
    parser.add_argument("-n", type=int, default=1, metavar="N", help="how many, 1 to 10")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="the same seed gives the same picture; n pictures count up"
    )
    parser.add_argument("--negative", metavar="TEXT", help="what should not be in the picture")
    parser.add_argument("--steps", type=int, metavar="N", help="more take longer, up to what the model can")
    parser.add_argument("--image", metavar="FILE", nargs="+", action="extend", help="picture(s) to edit; behind PROMPT")
    parser.add_argument("--mask", metavar="FILE", help="edit only where this picture is transparent (or white)")
    where = "file to write, or folder for image-1.png … (default: here)"
    parser.add_argument("-o", "--output", metavar="FILE_OR_FOLDER", help=where)
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done; nothing is bought")


async def run(options: argparse.Namespace, configuration: Configuration) -> int:
    """Make pictures through the same engine as the service and write them to files. Raises Mistake."""
    if options.prompt is None:
        raise Mistake("PROMPT is missing; write it before --image, which takes every word behind it")
    output = _Output.of(options.output)
    engine = Engine(configuration)
    engine.routing.where_listed = "'images-proxy models'"
    resolved = await _resolve(engine, options, output.format)
    output.refuse_what_is_there(options.n, force=options.force)
    if options.dry_run:
        load_learned(engine.schedule, engine.directory)  # from a file: for a mere question no state is opened
        sys.stdout.write("\n".join(_forecast(engine, resolved)) + "\n")
        return 0
    async with AsyncExitStack() as stack:
        await engine.open(serving=False)
        stack.push_async_callback(engine.close)
        resolved = _with_prices(engine, resolved)
        started = engine.clock.monotonic()
        generation = engine.generations.join(resolved).generation
        await _show(generation)
        took_s = engine.clock.monotonic() - started
        if generation.failure is not None:
            sys.stderr.write(f"images-proxy: {generation.failure.message}\n")
            return 1
        for picture, name in zip(generation.pictures, output.names(options.n), strict=True):
            if picture.stored is not None:
                path = await _write(engine.store, picture.stored.name, name, force=options.force)
                sys.stdout.write(f"{path} ({_described(picture)})\n")
        # Not to standard output, which lists the files, for scripts.
        sys.stderr.write("\n".join(_told(generation, took_s)) + "\n")
        return 0


# --- what is asked ----------------------------------------------------------------------------------------------------


async def _resolve(engine: Engine, options: argparse.Namespace, output_format: str) -> ResolvedRequest:
    """Return the checked request. Raises Mistake."""
    values: dict[str, Any] = {
        "prompt": options.prompt,
        "model": options.model,
        "size": options.size,
        "n": options.n,
        "seed": options.seed,
        "negative_prompt": options.negative,
        "steps": options.steps,
        "output_format": output_format,
        "response_format": "b64_json",
    }
    limit = engine.settings.server.max_upload
    images = [_picture(Path(name), "image", limit) for name in options.image or ()]
    mask = _picture(Path(options.mask), "mask", limit) if options.mask else None
    try:
        if not images and mask is None:
            return engine.resolve(values, caller=_CALLER)
        upload = complete(values, images, mask)
        operation: Operation = "inpaint" if mask else "edit"
        resolved = engine.resolve(values, operation, caller=_CALLER, images=upload.images, mask=upload.mask)
        return resolved.with_mask(await readable_mask(engine.converter, mask)) if mask else resolved
    except Failure as failure:
        raise Mistake(failure.message) from None


def _with_prices(engine: Engine, resolved: ResolvedRequest) -> ResolvedRequest:
    """Leave out routes without a known price if a budget in dollars holds, which the state tells. Raises Mistake."""
    try:
        engine.check_prices(resolved, _CALLER)
    except Failure as failure:
        raise Mistake(failure.message) from None
    return engine.with_prices(resolved, _CALLER)


def _picture(path: Path, param: str, max_bytes: int) -> InputPicture:
    """Return a picture in a file. Raises Mistake."""
    try:
        if path.stat().st_size > max_bytes:
            raise Mistake(f"{path}: is larger than {max_bytes} bytes (server.max_upload)")
        return picture_of(path.read_bytes(), param)
    except OSError as error:
        raise Mistake(f"{path}: {error.strerror}") from None
    except Failure as failure:
        raise Mistake(f"{path}: {failure.message}") from None


# --- where it goes ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Output:
    """Where pictures go. ``named``: to this very name, numbered if there are several; else to names that are free."""

    path: Path
    named: bool

    @classmethod
    def of(cls, given: str | None) -> "_Output":
        """Return what ``-o`` means: a file, a folder, or (None) the current folder. Raises Mistake."""
        if given is None:
            return cls(Path(_USUAL_NAME), named=False)
        path = Path(given)
        if path.is_dir():
            return cls(path / _USUAL_NAME, named=False)
        if given.endswith("/"):
            raise Mistake(f"{given}: there is no such folder")
        if path.suffix.lower() not in _FORMATS:
            raise Mistake(f"{path}: the name must end in {', '.join(_FORMATS)}, or be that of a folder")
        if not path.parent.is_dir():
            raise Mistake(f"{path}: there is no folder '{path.parent}'")
        return cls(path, named=True)

    @property
    def format(self) -> str:
        """The pictures' type, from the name's ending."""
        return _FORMATS[self.path.suffix.lower()]

    def names(self, n: int) -> list[Path]:
        """Return the files to write."""
        if self.named and n == 1:
            return [self.path]
        names: list[Path] = []
        number = 0
        while len(names) < n:
            number += 1
            path = self.path.with_stem(f"{self.path.stem}-{number}")
            if self.named or not os.path.lexists(path):
                names.append(path)
        return names

    def refuse_what_is_there(self, n: int, *, force: bool) -> None:
        """Raise Mistake if a file to write is there already; called before anything is bought."""
        for path in self.names(n):
            if path.is_dir():
                raise Mistake(f"{path}: is a folder")
            if os.path.lexists(path) and not force:
                message = "is there already; choose another name with -o, or overwrite it with --force"
                raise Mistake(f"{path}: {message}")


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


# --- what is told -----------------------------------------------------------------------------------------------------


async def _show(generation: Generation) -> None:
    """Draw the generation's progress until it ends."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("waiting", total=len(generation.progress))
        while not generation.done:
            states = [progress.state for progress in generation.progress]
            fractions = [1.0 if p.state == "done" else p.fraction or 0.0 for p in generation.progress]
            bar.update(task, completed=sum(fractions), description=next((s for s in states if s != "done"), "done"))
            await asyncio.sleep(_REDRAW_S)


def _described(picture: Picture) -> str:
    size = f"{picture.width}x{picture.height}"
    return size if picture.origin.seed is None else f"{size}, seed {picture.origin.seed}"


def _told(generation: Generation, took_s: float) -> Iterable[str]:
    """Yield lines on how the pictures were made."""
    prices = [picture.price for picture in generation.pictures]
    amounts = [price.amount for price in prices if price.amount is not None]
    sources = ", ".join(dict.fromkeys(price.source for price in prices))
    cost = f"${decimal_text(sum(amounts))} ({sources})" if len(amounts) == len(prices) else "cost unknown"
    origins = [picture.origin for picture in generation.pictures]
    makers = dict.fromkeys(f"{origin.provider}/{origin.model}" for origin in origins)
    yield f"made by {', '.join(makers)} in {took_s:.1f} s, {cost}"
    for progress in generation.progress[:1]:
        for route, (_, code) in progress.passed_over.items():
            yield f"passed over: {route} ({code})"
    yield from _changes(origins[0].mapped, origins[0].dropped)


def _changes(mapped: Iterable[str], dropped: Iterable[str]) -> Iterable[str]:
    yield from (f"changed: {change}" for change in mapped)
    if names := ", ".join(dropped):
        yield f"left out: {names}"


def _forecast(engine: Engine, resolved: ResolvedRequest) -> Iterable[str]:
    """Yield lines on what would be done."""
    n = resolved.request.n
    pictures = "1 picture" if n == 1 else f"{n} pictures"
    yield f"Nothing was bought. It would be {pictures}, made by the first of these that takes the job:"
    for number, route in enumerate(engine.forecast(resolved), 1):
        amount = route.price.amount
        price = "price unknown" if amount is None else f"${decimal_text(amount)} a picture ({route.price.source})"
        time = "time unknown" if route.seconds is None else f"about {route.seconds:.1f} s"
        yield f"{number}. {route.provider}/{route.model}"
        yield f"   {route.width}x{route.height}, {price}, {time}"
        yield from (f"   {line}" for line in _changes(route.mapped, route.dropped))
