"""`qrun hardware`: what this machine has, and what a model may use of it."""

from pathlib import Path

import click

from qrun.bandwidth import BandwidthStore
from qrun.config import read_config
from qrun.devices import with_bandwidths
from qrun.hardware import Hardware
from qrun.hardware_file import load_hardware
from qrun.probe import probe_hardware
from qrun.profiles import all_profiles
from qrun.render_hardware import show_hardware
from qrun.render_profiles import show_profiles

__all__ = ["hardware"]


@click.command()
@click.option(
    "--hardware",
    "hardware_file",
    type=click.Path(path_type=Path),
    metavar="NAME|FILE",
    help="Show the built-in machine NAME, or the one that FILE (TOML) describes, instead of this one.",
)
@click.option("--profiles", is_flag=True, help="List the built-in machines.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def hardware(hardware_file: Path | None, *, profiles: bool, as_json: bool) -> None:
    """Show what this machine has, and what a model may use of it."""
    if profiles:
        show_profiles(all_profiles(), as_json=as_json)
        return
    machine = with_bandwidths(load_hardware(hardware_file)) if hardware_file else _this_machine()
    show_hardware(machine, as_json=as_json)


def _this_machine() -> Hardware:
    config = read_config()
    return BandwidthStore(config.state_dir).measured(probe_hardware(environ=config.environ))
