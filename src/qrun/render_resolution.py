"""`Resolution` for people (`qrun resolve`): one row for each candidate, the chosen first, then why.

For programs the same as JSON (`resolution_json`). What is unknown is a dash.
"""

from collections.abc import Iterator

import click

from qrun.render import Column, print_json, print_table
from qrun.resolution import Choice, Rejection, Resolution
from qrun.resolution_json import to_json
from qrun.speed import Speed
from qrun.units import gib, size

__all__ = ["show_resolution"]

_COLUMNS = (
    Column(""),
    Column("Quant"),
    Column("Size", right=True),
    Column("Memory", right=True),
    Column("Tokens/s", right=True),
    Column("KLD", right=True),
    Column("Repo", keeps=False),
    Column("Outcome", keeps=False),
)
_UNKNOWN = "-"
_MODES = {
    "gpu": "whole on the GPU",
    "unified": "whole in unified memory",
    "split": "layers split between GPU and CPU",
    "experts-on-cpu": "experts on the CPU, all else on the GPU",
    "cpu": "on the CPU",
}


def show_resolution(resolution: Resolution, *, as_json: bool) -> None:
    """Print the decision on stdout. Its error, where there is one, is the door's to print."""
    if as_json:
        print_json(to_json(resolution))
        return
    rows = [_row(resolution.chosen)] if resolution.chosen else []
    rows += [_losing_row(resolution, rejection) for rejection in _losers(resolution)]
    if not rows and resolution.error is not None:
        return  # no candidate was looked at: the error says it all
    for line in _heading(resolution):
        click.echo(line)
    if rows:
        click.echo()
        print_table(_COLUMNS, rows, marked=0 if resolution.chosen else None)
    for line in (*_why(resolution), *(f"Warning: {warning}" for warning in resolution.warnings)):
        click.echo(line)


def _heading(resolution: Resolution) -> Iterator[str]:
    if resolution.base_model:
        yield f"Model     {resolution.base_model}"
    devices = ", ".join(f"{one.name}: {gib(one.budget_bytes)} usable" for one in resolution.hardware.devices)
    yield f"Machine   {resolution.hardware.name} ({devices})"
    goal = f"Goal      {resolution.request.goal}"
    yield goal if resolution.n_ctx is None else f"{goal}, context {resolution.n_ctx} tokens"


def _row(choice: Choice) -> list[str]:
    candidate = choice.candidate
    return [
        ">",
        candidate.quant,
        size(candidate.size_bytes),
        _memory(choice),
        _rate(choice.speed),
        f"{choice.quality.kld:.4f}",
        candidate.repo_id or candidate.files[0].path,
        "chosen",
    ]


def _losers(resolution: Resolution) -> list[Rejection]:
    """The alternatives in their order, then all others."""
    places = {id(choice.candidate): place for place, choice in enumerate(resolution.alternatives)}
    return sorted(resolution.rejected, key=lambda one: places.get(id(one.candidate), len(places)))


def _losing_row(resolution: Resolution, rejection: Rejection) -> list[str]:
    candidate = rejection.candidate
    choice = next((one for one in resolution.alternatives if one.candidate is candidate), None)
    return [
        "",
        candidate.quant,
        size(candidate.size_bytes),
        _memory(choice) if choice else _needed(rejection),
        _rate(choice.speed if choice else rejection.speed),
        f"{rejection.quality.kld:.4f}" if rejection.quality else _UNKNOWN,
        candidate.repo_id or candidate.files[0].path,
        f"{rejection.reason.replace('_', ' ')}: {rejection.detail}{_remedy(rejection)}",
    ]


def _remedy(rejection: Rejection) -> str:
    """What would let the candidate in."""
    if rejection.would_fit is None:
        return ""
    if rejection.reason == "too_large":
        return f"; would fit {rejection.would_fit}"
    if rejection.reason == "hardware_unsupported":
        return f"; would run on {rejection.would_fit}"
    return f"; let in by {rejection.would_fit}"


def _memory(choice: Choice) -> str:
    """The need of the budgets it is held against."""
    budgets = [one.budget_bytes for one in choice.memory.devices if one.budget_bytes is not None]
    need = size(choice.memory.total_bytes)
    return f"{need} of {size(sum(budgets))}" if budgets else need


def _needed(rejection: Rejection) -> str:
    return _UNKNOWN if rejection.needed_bytes is None else size(rejection.needed_bytes)


def _rate(speed: Speed | None) -> str:
    return _UNKNOWN if speed is None else f"{_number(speed.low)} to {_number(speed.high)}"


def _number(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"  # noqa: PLR2004  # two digits are all a range can carry


def _why(resolution: Resolution) -> Iterator[str]:
    if resolution.handover is not None:
        yield from ("", *resolution.handover.why, f"Load it with: {resolution.handover.load}")
    if resolution.chosen is None:
        return
    choice = resolution.chosen
    engine = choice.engine if choice.engine_installed else f"{choice.engine} (not installed yet)"
    slots = f"{choice.n_parallel} slot{'s' if choice.n_parallel > 1 else ''} of {choice.n_ctx} tokens"
    yield ""
    where = _MODES[choice.placement.mode]
    yield f"Chosen    {choice.candidate.quant}: {where}, {slots}, KV cache {choice.kv_cache_type}"
    yield f"Engine    {engine}"
    for first, line in enumerate(choice.why):
        yield f"{'Why' if first == 0 else '':<10}{line}"
