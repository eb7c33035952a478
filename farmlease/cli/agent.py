"""``farmlease agent``: run this node's agent in the foreground."""

import asyncio
from pathlib import Path

import click

from farmlease.cli import config_file, example

__all__ = ["agent"]


@click.command(epilog=example("farmlease agent", "farmlease --config /etc/farmlease/farmlease.toml agent"))
def agent() -> None:
    """Run this node's agent in the foreground until it is stopped (SIGTERM, Ctrl-C)."""
    from farmlease.config.model import load_config
    from farmlease.node.daemon import run_agent
    from farmlease.node.logs import write_json_lines

    path = config_file()
    config = load_config(Path(path) if path else None)
    asyncio.run(run_agent(config, write_json_lines()))
