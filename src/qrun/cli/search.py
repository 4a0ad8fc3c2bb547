"""`qrun search WORDS`: which base models there are, and what of each fits here."""

from contextlib import closing
from dataclasses import replace

import click

from qrun.cli.hub_switches import offline_option
from qrun.config import read_config
from qrun.here import resolve_here
from qrun.render_asking import show_asking
from qrun.render_search import show_hits
from qrun.request import Request
from qrun.resolution import Resolution

__all__ = ["search"]


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option(
    "--limit", type=click.IntRange(1, 20), default=5, show_default=True, help="How many bases to look at closely."
)
@offline_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def search(*, words: tuple[str, ...], limit: int, offline: bool, as_json: bool) -> None:
    """List the base models that WORDS find, each with the quant that fits here.

    Judged by labels and sizes; qrun resolve decides by the files' headers.
    """
    from qrun.search import bases_on_hub, bases_stored, look_at

    config = read_config()
    config = replace(config, hub=replace(config.hub, offline=config.hub.offline or offline), models_dir=None)

    def decide(base: str) -> Resolution:
        with closing(resolve_here(Request(base), config=config, to_fetch=True, glance=True)) as here:
            return here.resolution

    text = " ".join(words)
    with show_asking():
        bases = (bases_stored if config.hub.offline else bases_on_hub)(text, config.hub)
        hits = look_at(bases[:limit], decide)
    show_hits(text, hits, n_more=len(bases) - len(hits), as_json=as_json)
