"""`qrun rm NAME...`: stored models deleted."""

import sys

import click

from qrun.config import read_config
from qrun.errors import UsageError
from qrun.render_store import removal_line, show_removed
from qrun.store_ledger import Ledger
from qrun.store_remove import plan_removal, remove
from qrun.stored_names import repos_named

__all__ = ["rm"]


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", "assume_yes", is_flag=True, help="Delete without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def rm(names: tuple[str, ...], *, assume_yes: bool, as_json: bool) -> int:
    """Delete the stored repos of NAME, a repo or a base model, with all that is unfinished in them."""
    config = read_config()
    cache_dir = config.hub.cache_dir
    removals = plan_removal(cache_dir, repos_named(names, cache_dir))
    if not assume_yes:
        if not sys.stdin.isatty():
            raise UsageError(f"nobody can be asked here; --yes deletes {removal_line(removals)}.")
        if not click.confirm(f"Delete {removal_line(removals)}?", err=True):
            return 1
    ledger = Ledger(config.ledger_dir)
    for removal in removals:
        remove(cache_dir, removal)
        ledger.forget(removal.repo.repo_id)
    show_removed(removals, as_json=as_json)
    return 0
