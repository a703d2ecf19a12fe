"""``models``: every model's name, its routes, and whether it can be used."""

import argparse
import fnmatch
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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
    which = "only names that contain this, or match it as a pattern with *"
    parser.add_argument("filter", metavar="FILTER", nargs="?", default="", help=which)
    parser.add_argument("--json", action="store_true", help="for scripts")


@dataclass(frozen=True, slots=True)
class _Listed:
    """A public name with its routes; for each route, why it can't be used (empty: it can)."""

    name: str
    routes: Sequence[tuple[str, str]]

    @property
    def usable(self) -> bool:
        return any(not why for _, why in self.routes)


async def run(options: argparse.Namespace, configuration: Configuration) -> int:
    """Print the models: as a table on a terminal, in plain lines in a pipe. Status 1 if none matches the filter."""
    engine = Engine(configuration)
    configured = [listed for listed in _configured(engine) if _matches(listed.name, options.filter)]
    native = [listed for listed in _native(engine) if _matches(listed.name, options.filter)]
    if not configured and not native:
        sys.stderr.write(f"images-proxy: no model's name contains or matches '{options.filter}'\n")
        return 1
    if options.json:
        sys.stdout.write(json.dumps({"models": [_json(each) for each in (*configured, *native)]}, indent=2) + "\n")
    elif sys.stdout.isatty():
        # Hundreds of native names would bury the few that most people want; a filter shows them.
        if configured:
            _print_configured(configured)
        if options.filter:
            _print_native(native)
        else:
            _print_providers(engine)
    else:
        sys.stdout.writelines(f"{_line(each)}\n" for each in (*configured, *native))
    return 0


def _matches(name: str, wanted: str) -> bool:
    name, wanted = name.lower(), wanted.lower()
    # Substrings first: names hold brackets and stars of their own.
    return wanted in name or fnmatch.fnmatchcase(name, wanted)


def _configured(engine: Engine) -> Iterable[_Listed]:
    for name, settings in engine.routing.configured():
        yield _Listed(name, [(route, engine.routing.why_unusable(route)) for route in settings.routes])


def _native(engine: Engine) -> Iterable[_Listed]:
    """Yield each provider's own models by their full names."""
    for provider, catalogue in engine.catalogues.items():
        for model in catalogue.models:
            yield _Listed(f"{provider}/{model}", [(f"{provider}/{model}", catalogue.why_not)])


def _json(listed: _Listed) -> dict[str, Any]:
    routes = [{"route": route, "usable": not why, "why_not": why or None} for route, why in listed.routes]
    return {"name": listed.name, "usable": listed.usable, "routes": routes}


def _line(listed: _Listed) -> str:
    """Return the columns of one model, between tabs: name, whether it is usable, its routes, why some are not used."""
    why = dict.fromkeys(f"{route.partition('/')[0]}: {why}" for route, why in listed.routes if why)
    routes = ", ".join(route for route, _ in listed.routes)
    return "\t".join((listed.name, "yes" if listed.usable else "no", routes, "; ".join(why)))


def _table(*columns: str) -> Table:
    # Without lines, and folded: at 80 columns the longest name and the longest route just fit side by side.
    return Table(*(Column(name, overflow="fold") for name in columns), box=None, pad_edge=False)


def _print_configured(configured: Sequence[_Listed]) -> None:
    """Print names that share their routes in one row; each route on a line, with the reason if it isn't used."""
    table = _table("model", "usable", "made by the first of")
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for listed in configured:
        alike.setdefault(tuple(listed.routes), []).append(listed.name)
    for routes, names in alike.items():
        usable = any(not why for _, why in routes)
        by = Text("\n").join(_route(route, why) for route, why in routes)
        table.add_row(Text("\n".join(names)), "yes" if usable else "no", by)
        table.add_row()
    Console().print(table)


def _print_native(native: Sequence[_Listed]) -> None:
    table = _table("model", "usable", "why not")
    for listed in native:
        table.add_row(Text(listed.name), "yes" if listed.usable else "no", Text(listed.routes[0][1], "dim"))
    if native:
        Console().print(table)


def _route(route: str, why: str) -> Text:
    return Text.assemble((route, "dim"), (f"\n  not used: {why}", "dim")) if why else Text(route)


def _print_providers(engine: Engine) -> None:
    """Print how many models of its own each provider has."""
    sys.stdout.write("The providers' own models can be asked for as PROVIDER/MODEL:\n")
    for name, catalogue in engine.catalogues.items():
        why = f"; not used: {catalogue.why_not}" if catalogue.why_not else ""
        sys.stdout.write(f"  {name}: {len(catalogue.models)}{why}\n")
    sys.stdout.write("'images-proxy models PROVIDER/' lists them.\n")
