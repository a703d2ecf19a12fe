"""``serve``: the service itself."""

import argparse
import gc
import os
import sys
from pathlib import Path

from starlette.applications import Starlette

from proxy import __version__, logs
from proxy.app import create_app
from proxy.commands.arguments import add_config, add_demo
from proxy.config import Configuration, ConfigurationError
from proxy.server.exchange import WireLimits
from proxy.server.process import raise_file_limit, serve

_AFTER_DRAIN_S = 5.0
"""How much longer than its drain another process may take to let go of the state."""
_CURL = """\
  curl {base}/v1/images/generations -H 'Content-Type: application/json'{key} \\
    -d '{{"model": "{model}", "prompt": "a lighthouse at dawn, oil painting"}}'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve``."""
    parser.set_defaults(run=run)
    add_config(parser)
    add_demo(parser)
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=_port, help="port to listen on; 0 picks a free one")


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port (0 to 65535)")
    return int(text)


async def run(options: argparse.Namespace, configuration: Configuration) -> int:
    """Serve until a signal says stop. Raises ConfigurationError, StateUnavailable, OSError."""
    server, timeouts = configuration.settings.server, configuration.settings.timeouts
    app = create_app(configuration)
    engine = app.state.waiting.engine
    await engine.open_state(patience_s=timeouts.drain + _AFTER_DRAIN_S)
    exposed = configuration.exposed(asked=engine.accounts.keys.asked)
    if exposed:
        await engine.journal.close()
        raise ConfigurationError([exposed])
    logs.set_up(server.log)
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
        raise ConfigurationError([f"images.directory: {directory}: {error.strerror}"]) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigurationError([f"images.directory: {directory}: no right to write there"])


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
    configuration = engine.configuration
    unused = [name for name in engine.settings.providers if configuration.why_not(name)]
    lines = [
        f"images-proxy {__version__} is ready. Base URL: {base}/v1",
        f"Providers: {', '.join(engine.runtimes) or 'none'}{' (all simulated)' if demo else ''}",
        *(f"Not used: {name}. To use it, {configuration.how_to_use(name)}." for name in unused),
        f"Models: {', '.join(sorted(usable)) or 'none is usable yet'}",
        "Try it:",
        _CURL.format(
            base=base,
            model=server.default_model,
            key=' -H "Authorization: Bearer $KEY"' if engine.accounts.keys.asked else "",
        ),
    ]
    if configuration.demo_admin_key:
        lines.append(f"Admin key, made for this run: {configuration.demo_admin_key}")
    if sys.stdout.isatty():
        lines.append(f"Or open {base}/ in a browser. Ctrl-C stops.")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
