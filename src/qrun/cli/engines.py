"""`qrun engines`: what runs which format here, and `qrun engines install NAME`."""

import click

from qrun.config import read_config
from qrun.render_engines import show_engines, show_installed, show_progress

__all__ = ["engines"]


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def engines(ctx: click.Context, *, as_json: bool) -> None:
    """List the runners and their engines, or install one."""
    if ctx.invoked_subcommand is not None:
        return
    from qrun.engine_list import list_engines
    from qrun.probe import probe_hardware

    config = read_config()
    show_engines(list_engines(config, probe_hardware(environ=config.environ)), as_json=as_json)


@engines.command()
@click.argument("name", metavar="NAME")
@click.option("--build", is_flag=True, help="Build it from source for this machine (minutes; needs a C++ compiler).")
@click.option("--allow-cpu-engine", is_flag=True, help="Accept an engine for the CPU alone on a machine with a GPU.")
@click.option("--yes", is_flag=True, expose_value=False, help="Accepted for scripts: install never asks.")
def install(name: str, *, build: bool, allow_cpu_engine: bool) -> None:
    """Install the engine of runner NAME in an environment of its own, and test it."""
    from qrun.engine_install import install as install_engine
    from qrun.probe import probe_hardware
    from qrun.registry import runner_named

    runner_named(name)  # before anything is probed: a typo is answered at once
    config = read_config()
    hardware = probe_hardware(environ=config.environ)
    with show_progress(name) as report:
        installed = install_engine(
            name, build=build, config=config, hardware=hardware, report=report, allow_cpu_engine=allow_cpu_engine
        )
    show_installed(installed)
