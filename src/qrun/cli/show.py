"""`qrun show MODEL`: what a model is and what there is of it."""

from pathlib import Path

import click

from qrun.cli.hub_switches import models_dir_option, offline_option
from qrun.config import read_config
from qrun.errors import QrunError
from qrun.render_asking import show_asking
from qrun.render_show import show_refusal, show_shown, show_template

__all__ = ["show"]


@click.command()
@click.argument("model")
@models_dir_option
@click.option("--refresh", is_flag=True, help="Ask the Hub anew, whatever was kept of its answers.")
@offline_option
@click.option("--template", "template_alone", is_flag=True, help="Print the chat template alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def show(
    *, model: str, models_dir: Path | None, refresh: bool, offline: bool, template_alone: bool, as_json: bool
) -> None:
    """Show what MODEL is, and which quants there are of it.

    Architecture, context, chat template and licence; needs no engine, chooses nothing and fetches no weights.
    """
    from qrun.show import show_model

    try:
        with show_asking():
            shown = show_model(model, config=read_config(), models_dir=models_dir, refresh=refresh, offline=offline)
    except QrunError as error:
        if as_json:
            show_refusal(model, error)
        raise
    if template_alone and not as_json:
        show_template(shown)
    else:
        show_shown(model, shown, as_json=as_json)
