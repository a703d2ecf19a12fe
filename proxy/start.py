"""What every command starts with: the configuration, and the simulator if the demo is asked for."""

import argparse
import os
from contextlib import AsyncExitStack

from proxy import config


async def enter_configuration(stack: AsyncExitStack, options: argparse.Namespace) -> config.Configuration:
    """Load the configuration that the options name; for the demo, start the simulator first.

    Raises config.ConfigurationError, OSError.
    """
    given = {"host": getattr(options, "host", None), "port": getattr(options, "port", None)}
    server = {name: value for name, value in given.items() if value is not None}
    overrides = {"server": server} if server else {}
    path = config.find_file(options.config, os.environ, look_here=not options.demo)
    if not options.demo:
        return config.load(path, os.environ, **overrides)
    from proxy.demo import simulated  # noqa: PLC0415 (only the demo draws pictures)

    return await stack.enter_async_context(simulated(path, os.environ, options.demo_speed, **overrides))
