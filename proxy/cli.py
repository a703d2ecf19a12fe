"""The command line. A user's mistake ends with status 2 and a line that says what to change, never with a traceback."""

import argparse
import asyncio
import importlib
import os
import sys
from functools import partial
from typing import NoReturn

from proxy import __version__, config
from proxy.commands.arguments import Mistake, Parser
from proxy.server.process import PortInUse, StartupFailed, loop_factory
from proxy.state.operations import StateUnavailable

# Each command's module in proxy/commands, and what it does. The module's add_arguments(parser) sets, besides arguments,
# a default "run": run(options, configuration) does the work and returns the exit status. Only the module of the command
# that was given is imported: the service starts faster without what draws tables and bars.
_COMMANDS = {
    "serve": ("serve", "run the service"),
    "generate": ("generate", "make pictures from the command line"),
    "models": ("models", "list the models and whether they can be used"),
    "check": ("check", "check the configuration and ask each provider"),
    "keys": ("keys", "make and change keys, with what each may spend"),
    "usage": ("usage", "what was used, by key, owner, model, provider or day"),
    "ledger": ("ledger", "the entries; settle what nobody knows"),
    "state": ("state", "copy the state of a service that runs"),
}


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its status."""
    options = _parser().parse_args(arguments)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            sys.exit(runner.run(_start(options)))
    except config.ConfigurationError as error:
        _fail(error.problems)
    except Mistake as mistake:
        _fail([str(mistake)])
    except PortInUse as error:
        _fail([f"{error.strerror}; choose another port with --port"])
    except (StartupFailed, OSError) as error:
        _fail([str(error)])
    except StateUnavailable as error:
        _fail([f"{error.setting}: {error}"])
    except KeyboardInterrupt:  # for "serve" Ctrl-C is a proper end; 130 is the shell's 128 + SIGINT
        sys.exit(0 if options.command == "serve" else 130)


def _fail(problems: list[str]) -> NoReturn:
    for problem in problems:
        sys.stderr.write(f"images-proxy: {problem}\n")
    sys.exit(2)


async def _start(options: argparse.Namespace) -> int:
    """Run a command with the configuration that its options name; for the demo, start the simulator first."""
    given = {"host": getattr(options, "host", None), "port": getattr(options, "port", None)}
    server = {name: value for name, value in given.items() if value is not None}
    overrides = {"server": server} if server else {}
    demo = getattr(options, "demo", False)  # not every command has it
    path = config.find_file(options.config, os.environ, look_here=not demo)
    if not demo:
        return int(await options.run(options, config.load(path, os.environ, **overrides)))
    from proxy.demo import simulated  # noqa: PLC0415 (only the demo draws pictures)

    async with simulated(path, os.environ, options.demo_speed, **overrides) as configuration:
        return int(await options.run(options, configuration))


def _parser() -> Parser:
    parser = Parser(prog="images-proxy", description="OpenAI's Images API, answered by Prodia and ImageLabs.")
    parser.add_argument("--version", action="version", version=f"images-proxy {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser, metavar="COMMAND")
    for name, (module, does) in _COMMANDS.items():
        commands.add_parser(name, help=does, description=does, fill=partial(_fill, module))
    return parser


def _fill(module: str, parser: Parser) -> None:
    importlib.import_module(f"proxy.commands.{module}").add_arguments(parser)
