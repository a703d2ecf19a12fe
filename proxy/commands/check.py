"""``check``: the configuration, and a sign of life from each provider."""

import argparse
import sys
from contextlib import AsyncExitStack

from proxy.commands.arguments import add_config, add_demo
from proxy.config import Configuration
from proxy.engine import Engine
from proxy.errors import NotConfigured, UnknownModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``check``."""
    parser.set_defaults(run=run)
    add_config(parser)
    add_demo(parser)


async def run(options: argparse.Namespace, configuration: Configuration) -> int:  # noqa: ARG001 (a command's signature)
    """Validate the configuration (by loading it), check that each usable provider answers, and try the store."""
    async with AsyncExitStack() as stack:
        engine = Engine(configuration)
        stack.push_async_callback(engine.close)
        await engine.open(serving=False)
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
        exposed = engine.configuration.exposed(asked=engine.accounts.keys.asked)
        others = [f"images: {problem}"] if problem else []
        for line in (*_dead_ends(engine), *others, *filter(None, [exposed])):
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
