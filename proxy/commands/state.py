"""``state``: what can be done to the state as a whole, beside a service that runs."""

import argparse
import sys
from pathlib import Path

from proxy.commands.arguments import Mistake, Parser, add_config
from proxy.commands.states import opened
from proxy.config import Configuration
from proxy.state.settings import IN_MEMORY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``state``."""
    actions = parser.add_subparsers(dest="action", required=True, parser_class=Parser, metavar="ACTION")
    does = "write a consistent copy of the state's file while the service goes on"
    backup = actions.add_parser("backup", help=does, description=does)
    backup.set_defaults(run=run)
    backup.add_argument("file", metavar="FILE", type=Path, help="where to; a file that is there is replaced")
    add_config(backup)


async def run(options: argparse.Namespace, configuration: Configuration) -> int:
    """Copy the state. Raises Mistake, proxy.state.operations.StateUnavailable."""
    file = configuration.state_file
    if not configuration.database_url and file is None:
        raise Mistake(f"state.path is '{IN_MEMORY}': there is nothing to copy")
    if not configuration.database_url and file is not None and not file.exists():
        raise Mistake(f"there is no state at {file} yet")
    if options.file.is_dir():
        raise Mistake(f"{options.file}: is a folder")
    async with opened(configuration) as state:
        await state.backup(options.file)
    sys.stdout.write(f"{options.file} ({options.file.stat().st_size} bytes)\n")
    return 0
