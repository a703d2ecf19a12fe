"""The figures: one table for people, the same as JSON for whoever compares two runs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

_PACKAGES = ("images-proxy", "starlette", "uvicorn", "uvloop", "httptools", "aiohttp", "pydantic")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure. ``reference`` is what the same session gave for what it is compared with.

    ``target`` is the text of what must hold, empty where nothing must; ``met`` is None then.
    """

    benchmark: str
    name: str
    ours: float
    unit: str
    reference: float | None = None
    against: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


def compare(
    benchmark: str,
    name: str,
    unit: str,
    ours: Sequence[float],
    reference: Sequence[float] = (),
    against: str = "floor",
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    absolute: bool = False,
) -> Figure:
    """Return the figure of interleaved rounds: the medians, and the median of each round's ratio.

    The target is for the ratio, or with ``absolute`` for the figure itself.
    """
    pairs = zip(ours, reference, strict=True) if reference else ()
    ratios = [mine / other for mine, other in pairs if other]
    ratio = median(ratios) if ratios else None
    value = median(ours) if absolute or ratio is None else ratio
    target, met = "", None
    unit_of_target = f" {unit}" if absolute else "x"
    if at_most is not None:
        target, met = f"<= {at_most:g}{unit_of_target}", value <= at_most
    elif at_least is not None:
        target, met = f">= {at_least:g}{unit_of_target}", value >= at_least
    other = median(reference) if reference else None
    return Figure(benchmark, name, median(ours), unit, other, against if reference else "", ratio, target, met)


def circumstances(rounds: int) -> dict[str, object]:
    """Return what the figures depend on."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "rounds": rounds,
        "packages": {name: version(name) for name in _PACKAGES},
    }


def show(figures: Sequence[Figure], facts: dict[str, object], path: Path) -> None:
    """Print the table and write the file."""
    path.write_text(json.dumps({"circumstances": facts, "figures": [asdict(each) for each in figures]}, indent=1))
    table = Table("benchmark", "figure", "ours", "reference", "ratio", "target", "met")
    before = ""
    for each in figures:
        table.add_row(
            each.benchmark if each.benchmark != before else "",
            each.name,
            f"{each.ours:.4g} {each.unit}",
            "" if each.reference is None else f"{each.reference:.4g} ({each.against})",
            "" if each.ratio is None else f"{each.ratio:.2f}x",
            each.target,
            "" if each.met is None else "yes" if each.met else "NO",
        )
        before = each.benchmark
    console = Console(width=150)
    console.print(table)
    console.print(f"{facts['cores']} cores, Python {facts['python']}, load {facts['load']:.1f}; written to {path.name}")
