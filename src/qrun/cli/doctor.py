"""`qrun doctor`: checks of this installation, each with its remedy."""

import click

from qrun.checks import has_failed
from qrun.config import read_config
from qrun.doctor import examine
from qrun.render_doctor import show_checks

__all__ = ["doctor"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def doctor(*, as_json: bool) -> int:
    """Check this installation and say what to mend."""
    checks = examine(read_config())
    show_checks(checks, as_json=as_json)
    return 1 if has_failed(checks) else 0
