"""`qrun resolve`: the decision alone, as a table or as JSON."""

from pathlib import Path

import click

from qrun.cli.options import hardware_option, request_options, yes_option
from qrun.config import read_config
from qrun.here import resolve_here
from qrun.render_asking import show_asking
from qrun.render_resolution import show_resolution
from qrun.request import Request

__all__ = ["resolve"]


@click.command()
@request_options
@hardware_option
@yes_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def resolve(
    *,
    request: Request,
    models_dir: Path | None,
    hardware_file: Path | None,
    refresh: bool,
    offline: bool,
    assume_yes: bool,
    as_json: bool,
) -> None:
    """Show which files MODEL resolves to on this machine, and why."""
    with show_asking():
        here = resolve_here(
            request,
            config=read_config(),
            models_dir=models_dir,
            hardware_file=hardware_file,
            assume_yes=assume_yes,
            refresh=refresh,
            offline=offline,
        )
    here.close()
    show_resolution(here.resolution, as_json=as_json)
    if here.resolution.error is not None:
        raise here.resolution.error
