"""The engine that a choice needs, installed where the user has agreed to that."""

import sys

import click

from qrun.config import Config
from qrun.errors import EngineMissing
from qrun.here import Here

__all__ = ["ensure_engine"]


def ensure_engine(here: Here, *, config: Config, assume_yes: bool, allow_cpu_engine: bool) -> None:
    """Install the chosen candidate's engine if it is not there: asked for on a terminal, or taken with `--yes`.

    Raises the resolution's error, EngineMissing where the answer is no, and what an installation raises.
    """
    choice = here.resolution.require()
    if choice.engine_installed:
        return
    command = f"qrun engines install {choice.engine}"
    if not assume_yes and not (
        sys.stdin.isatty() and click.confirm(f"{choice.engine} is not installed. Install it now?", err=True)
    ):
        raise EngineMissing(choice.engine, "not installed", f"Run: {command}")
    from qrun.engine_install import install
    from qrun.render_engines import show_progress

    with show_progress(choice.engine) as report:
        install(
            choice.engine,
            build=False,
            config=config,
            hardware=here.hardware,
            report=report,
            allow_cpu_engine=allow_cpu_engine,
        )
