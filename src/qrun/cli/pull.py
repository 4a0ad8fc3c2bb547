"""`qrun pull MODEL...`: what each model resolves to here, fetched and verified."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import click

from qrun.cli.options import hardware_option, requests_options
from qrun.config import Config, read_config
from qrun.errors import QrunError, UsageError
from qrun.here import Here, resolve_here
from qrun.outdated import kept_here
from qrun.pins import request_of
from qrun.render_asking import show_asking
from qrun.render_progress import show_transfer
from qrun.render_pull import Pulled, show_pulled, show_refusal, show_warnings
from qrun.request import Request
from qrun.source import Report

__all__ = ["pull"]


@click.command()
@requests_options
@hardware_option
@click.option(
    "--update",
    is_flag=True,
    help="Decide anew and fetch what is chosen now; without MODEL, of all stored choices. "
    "Old files stay until new ones verify.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def pull(
    *,
    requests: tuple[Request, ...],
    models_dir: Path | None,
    hardware_file: Path | None,
    refresh: bool,
    offline: bool,
    update: bool,
    as_json: bool,
) -> None:
    """Fetch what each MODEL resolves to on this machine, and print its first file.

    One that fails does not stop the others; the exit code is that of the first that failed.
    """
    config = read_config()

    def decide(request: Request) -> Here:
        return resolve_here(
            request,
            config=config,
            models_dir=models_dir,
            hardware_file=hardware_file,
            refresh=refresh or update,
            offline=offline,
            remember=not update,  # the old choice stands until the new files are there
            to_fetch=True,
        )

    if not requests:
        requests = _kept_requests(config, update=update)
    with ExitStack() as stack:
        with show_asking():
            decided = [_decided(request, decide, stack) for request in requests]
        show_warnings([warning for one in decided if one.here for warning in one.here.resolution.warnings])
        files = [file for one in decided if one.here for file in one.here.to_fetch]
        with show_transfer(sum(file.size_bytes for file in files), len(files)) as report:
            pulled = [_fetched(one, report, remember=update) for one in decided]
    show_pulled(pulled, as_json=as_json)
    errors = [one.error for one in pulled if one.error is not None]
    for error in errors[1:]:
        show_refusal(error)
    if errors:
        raise errors[0]


@dataclass(frozen=True, slots=True)
class _Decided:
    """A request and its decision. `here` is None where none could be made."""

    pulled: Pulled
    here: Here | None = None


def _kept_requests(config: Config, *, update: bool) -> tuple[Request, ...]:
    """The requests whose choices are stored. Raises UsageError where no update was asked for."""
    if not update:
        raise UsageError("name a MODEL to fetch, or give --update for all stored choices.")
    return tuple(request_of(decision.request) for decision in kept_here(config))


def _decided(request: Request, decide: Callable[[Request], Here], stack: ExitStack) -> _Decided:
    try:
        here = stack.enter_context(closing(decide(request)))
        return _Decided(Pulled(request.model, candidate=here.resolution.require().candidate), here)
    except QrunError as error:
        return _Decided(Pulled(request.model, error=error))


def _fetched(decided: _Decided, report: Report, *, remember: bool) -> Pulled:
    pulled = decided.pulled
    if decided.here is None:
        return pulled
    try:
        pulled = replace(pulled, path=decided.here.model_path(report))
        if remember:
            decided.here.remember()
    except QrunError as error:
        return replace(pulled, error=error)
    return pulled
