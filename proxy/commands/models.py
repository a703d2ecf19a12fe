"""``models``: every public name, its routes, and whether it can be used."""

import argparse
import sys

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from proxy.commands.arguments import add_config, add_demo
from proxy.config import Configuration
from proxy.engine import Engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``models``."""
    parser.set_defaults(run=run)
    add_config(parser)
    add_demo(parser)


async def run(options: argparse.Namespace, configuration: Configuration) -> int:  # noqa: ARG001 (a command's signature)
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
