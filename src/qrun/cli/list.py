"""`qrun list`: what is stored."""

from pathlib import Path

import click

from qrun.config import read_config
from qrun.render_store import show_stored
from qrun.store_ledger import Entry, Ledger
from qrun.stored_names import stored_models

__all__ = ["list_"]


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_(*, as_json: bool) -> None:
    """List the models that are stored on this disk."""
    config = read_config()
    cache_dir = config.hub.cache_dir
    foreign = [entry for entry in Ledger(config.ledger_dir).entries() if _is_in_use(entry)]
    show_stored(cache_dir, stored_models(cache_dir), foreign, as_json=as_json)


def _is_in_use(entry: Entry) -> bool:
    """Whether it is another tool's files that are still there."""
    return entry.tool is not None and all(Path(path).is_file() for path in entry.held_at)
