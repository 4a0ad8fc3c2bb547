"""How engines are shown: the list, an installation's progress, and its outcome.

On a terminal an installation shows its step, and a build its part done and the time left; elsewhere one line on stderr
says that it began, so that a script's log stays short.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from qrun.engine_install import Installed, Progress, Report
from qrun.engine_list import ListedEngine
from qrun.render import print_json

__all__ = ["show_engines", "show_installed", "show_progress"]


def show_engines(listed: Sequence[ListedEngine], *, as_json: bool) -> None:
    """Print the runners and their engines."""
    if as_json:
        print_json({"engines": [_as_json(one) for one in listed]})
        return
    for one in listed:
        for line in _lines(one):
            click.echo(line)


def show_installed(installed: Installed) -> None:
    """Print the engine that is in force now."""
    engine = installed.engine
    what = f"{engine.runner}: the {engine.flavour} engine {engine.version}"
    devices = ", ".join(sorted(engine.backends))
    if installed.already:
        where = installed.environment or f"{engine.executable} (from {engine.origin})"
        click.echo(f"{what} ({devices}) is already installed and passes its self-test: {where}")
        return
    took = f"{installed.took_s:.1f} s"
    click.echo(f"{what} ({devices}) was installed in {took} and passed its self-test: {installed.environment}")


@contextmanager
def show_progress(name: str) -> Iterator[Report]:
    """A report for `install` that shows what it is told."""
    if not sys.stderr.isatty():
        yield _OneLine(name)
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.SpinnerColumn(),
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=20),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    # The rate over the whole build: a short memory would promise too much after a few small files.
    whole_s = 3600
    with rich_progress.Progress(
        *columns, console=Console(stderr=True), transient=True, speed_estimate_period=whole_s
    ) as bar:
        task = bar.add_task(f"{name}: looking", total=None)

        def report(progress: Progress) -> None:
            if progress.stays:
                bar.console.print(f"{name}: {progress.step}", markup=False, highlight=False, soft_wrap=True)
            bar.update(task, description=f"{name}: {progress.step}", completed=progress.done or 0, total=progress.total)

        yield report


class _OneLine:
    """Says the first step that takes long, and no other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._said = False

    def __call__(self, progress: Progress) -> None:
        if not self._said and not progress.step.startswith("testing"):
            click.echo(f"qrun: installing {self._name}: {progress.step}", err=True)
            self._said = True


def _lines(one: ListedEngine) -> list[str]:
    head = f"{one.runner}  ({', '.join(one.formats)})" if one.formats else one.runner
    if one.engine is None:
        return [head, f"  none: {one.why_not or 'not installed'}", f"  {one.remedy}"]
    engine = one.engine
    version = f" {engine.version}" if engine.version else ""
    return [
        head,
        f"  {engine.flavour} engine{version}, for {', '.join(sorted(engine.backends))}",
        f"  {engine.executable}  (from {engine.origin})",
    ]


def _as_json(one: ListedEngine) -> dict[str, object]:
    engine = one.engine
    return {
        "runner": one.runner,
        "formats": list(one.formats),
        "installed": engine is not None,
        "can_install": one.can_install,
        "engine": None
        if engine is None
        else {
            "flavour": engine.flavour,
            "version": engine.version,
            "path": str(engine.executable),
            "origin": engine.origin,
            "backends": sorted(engine.backends),
        },
        "why_not": one.why_not,
        "remedy": one.remedy,
    }
