"""`qrun prune`: what qrun left behind and nobody needs."""

import time

import click

from qrun.config import read_config
from qrun.pins import PinStore
from qrun.render_store import show_pruned
from qrun.store_ledger import Ledger
from qrun.store_prune import prunable
from qrun.stored_names import stored_models

__all__ = ["prune"]


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be deleted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def prune(*, dry_run: bool, as_json: bool) -> None:
    """Delete what qrun left behind: given-up downloads, wrong bytes, superseded revisions."""
    config = read_config()
    ledger = Ledger(config.ledger_dir)
    cache_dir = config.hub.cache_dir
    pinned = {(kept.pin.revision, kept.pin.path) for kept in PinStore(config.pins_dir).all()}
    found = prunable(cache_dir, stored_models(cache_dir), ledger.entries(), pinned, now_s=time.time())
    for one in () if dry_run else found:
        one.delete()
        for commit in one.commits:
            ledger.forget(one.repo_id, commit)
    show_pruned(found, dry_run=dry_run, as_json=as_json)
