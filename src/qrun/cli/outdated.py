"""`qrun outdated`: what is stored and behind."""

import click

from qrun.config import read_config
from qrun.render_outdated import show_outdated

__all__ = ["outdated"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def outdated(*, as_json: bool) -> None:
    """Name stored repos that moved on the Hub, and choices that would differ today."""
    from qrun.outdated import changed_choices, kept_here, moved_repos

    config = read_config()
    show_outdated(moved_repos(config), changed_choices(config, kept_here(config)), as_json=as_json)
