"""The commands. A user's mistake ends with status 2 and a line that says what to change, never with a traceback."""

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

from starlette.applications import Starlette

from proxy import __version__, config, logs
from proxy.app import create_app
from proxy.server.exchange import WireLimits
from proxy.server.process import PortInUse, StartupFailed, loop_factory, raise_file_limit, serve
from proxy.state.operations import StateUnavailable

_AFTER_DRAIN_S = 5.0
"""How much longer than its drain another process may take to let go of the state."""
Command = Callable[[argparse.Namespace, config.Configuration], Coroutine[Any, Any, int]]

_CURL = """\
  curl {base}/v1/images/generations -H 'Content-Type: application/json'{key} \\
    -d '{{"model": "{model}", "prompt": "a lighthouse at dawn, oil painting"}}'"""


class _Parser(argparse.ArgumentParser):
    # In one line; argparse would print the whole usage before it.
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        sys.exit(2)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its status."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(_run(options))
    except config.ConfigurationError as error:
        _fail(error.problems)
    except PortInUse as error:
        _fail([f"{error.strerror}; choose another port with --port"])
    except (StartupFailed, OSError) as error:
        _fail([str(error)])
    except StateUnavailable as error:
        _fail([f"state.path: {error}"])
    except KeyboardInterrupt:  # for "serve" Ctrl-C is a proper end; 130 is the shell's 128 + SIGINT
        sys.exit(0 if options.command == "serve" else 130)


def _fail(problems: list[str]) -> NoReturn:
    for problem in problems:
        sys.stderr.write(f"images-proxy: {problem}\n")
    sys.exit(2)


def _run(options: argparse.Namespace) -> int:
    command: Command = _serve
    if options.command != "serve":
        from proxy import commands  # noqa: PLC0415 (the service starts faster without what draws tables and bars)

        command = commands.COMMANDS[options.command]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_start(command, options))


async def _start(command: Command, options: argparse.Namespace) -> int:
    """Run a command with the configuration that its options name; for the demo, start the simulator first."""
    given = {"host": getattr(options, "host", None), "port": getattr(options, "port", None)}
    server = {name: value for name, value in given.items() if value is not None}
    overrides = {"server": server} if server else {}
    path = config.find_file(options.config, os.environ, look_here=not options.demo)
    if not options.demo:
        return await command(options, config.load(path, os.environ, **overrides))
    from proxy.demo import simulated  # noqa: PLC0415 (only the demo draws pictures)

    async with simulated(path, os.environ, options.demo_speed, **overrides) as configuration:
        return await command(options, configuration)


def _parser() -> _Parser:
    parser = _Parser(prog="images-proxy", description="OpenAI's Images API, answered by Prodia and ImageLabs.")
    parser.add_argument("--version", action="version", version=f"images-proxy {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser, metavar="COMMAND")
    shared = _Parser(add_help=False)
    shared.add_argument("--config", metavar="FILE", help="configuration; else $IMAGES_PROXY_CONFIG, else ./config.toml")
    demo = _Parser(add_help=False)
    demo.add_argument("--demo", action="store_true", help="simulate all providers: no key and no network needed")
    demo.add_argument("--demo-speed", type=_speed, default=1.0, metavar="X", help="divide simulated waiting by X")
    serving = commands.add_parser("serve", parents=[shared, demo], help="run the service")
    serving.add_argument("--host", help="address to listen on")
    serving.add_argument("--port", type=_port, help="port to listen on; 0 picks a free one")
    generate = commands.add_parser("generate", parents=[shared, demo], help="make pictures from the command line")
    generate.add_argument("prompt", metavar="PROMPT")
    generate.add_argument("--model", metavar="M", help="public name or provider/model")
    generate.add_argument("--size", metavar="S", help="WIDTHxHEIGHT")
    generate.add_argument("-n", type=int, default=1, metavar="N", help="how many, 1 to 10")
    generate.add_argument("-o", "--output", metavar="FILE", help="file to write (default: image.png, numbered)")
    generate.add_argument("--force", action="store_true", help="overwrite files that are there")
    commands.add_parser("models", parents=[shared, demo], help="list the models and whether they can be used")
    commands.add_parser("check", parents=[shared, demo], help="check the configuration and ask each provider")
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port (0 to 65535)")
    return int(text)


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no positive number")
    return speed


async def _serve(options: argparse.Namespace, configuration: config.Configuration) -> int:
    server, timeouts = configuration.settings.server, configuration.settings.timeouts
    logs.set_up(server.log)
    app = create_app(configuration)
    engine = app.state.waiting.engine
    await engine.open_state(patience_s=timeouts.drain + _AFTER_DRAIN_S)
    _make_folder(engine.directory)
    raise_file_limit()
    _spare_the_collector()
    return await serve(
        app,
        host=server.host,
        port=server.port,
        limits=WireLimits(header_s=timeouts.header, body_s=timeouts.body),
        drain_s=timeouts.drain,
        on_drain=engine.drain,
        busy=lambda: engine.busy,
        on_started=lambda bound: _greet(app, bound[0][1], demo=options.demo),
    )


def _spare_the_collector() -> None:
    """Run the garbage collector less often: requests leave few cycles, and it takes a third of their CPU time.

    Generations are kept for repeats, so each full collection goes through thousands of live objects.
    """
    # What the imports made lives as long as the process: https://docs.python.org/3/library/gc.html#gc.freeze
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _make_folder(directory: Path) -> None:
    """Make the folder for pictures now, while one line can still report a mistake. Raises ConfigurationError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise config.ConfigurationError([f"images.directory: {directory}: {error.strerror}"]) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise config.ConfigurationError([f"images.directory: {directory}: no right to write there"])


def _greet(app: Starlette, port: int, *, demo: bool) -> None:
    """Print where the service is, what it offers and a call that can be pasted."""
    engine = app.state.waiting.engine
    server = engine.settings.server
    # "Any address" is nothing that a client can connect to everywhere.
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host  # noqa: S104 (compared, not bound)
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    usable = [
        name
        for name in engine.listed_names
        if any(not engine.routing.why_unusable(r) for r in engine.settings.models[name].routes)
    ]
    providers = ", ".join(engine.runtimes) or "none; see images-proxy models"
    lines = [
        f"images-proxy {__version__} is ready. Base URL: {base}/v1",
        f"Providers: {providers}{' (all simulated)' if demo else ''}",
        f"Models: {', '.join(sorted(usable)) or 'none is usable yet'}",
        "Try it:",
        _CURL.format(
            base=base,
            model=server.default_model,
            key=' -H "Authorization: Bearer $KEY"' if engine.configuration.key_digests else "",
        ),
    ]
    if sys.stdout.isatty():
        lines.append(f"Or open {base}/ in a browser. Ctrl-C stops.")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
