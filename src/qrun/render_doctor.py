"""The findings of `qrun doctor` for people and for programs."""

import json
from collections.abc import Sequence

import click

from qrun.checks import Check, has_failed

__all__ = ["doctor_json", "show_checks"]

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def show_checks(checks: Sequence[Check], *, as_json: bool) -> None:
    """Print `checks` on stdout: for people a line each, and its remedy below it."""
    if as_json:
        click.echo(json.dumps(doctor_json(checks), indent=2, ensure_ascii=False))
        return
    width = max((len(check.name) for check in checks), default=0)
    for check in checks:
        status = click.style(f"{check.status:<4}", fg=_COLOURS[check.status])  # click drops the colour in a pipe
        click.echo(f"{status}  {check.name:<{width}}  {check.detail}")
        if check.remedy and check.status != "ok":
            click.echo(f"{'':<{width + 8}}{check.remedy}")
    click.echo(_summary(checks))


def doctor_json(checks: Sequence[Check]) -> dict[str, object]:
    """The contract of `qrun doctor --json`. `ok`: no check failed, and the exit code is 0."""
    return {
        "schema": 1,
        "ok": not has_failed(checks),
        "checks": [
            {"name": check.name, "status": check.status, "detail": check.detail, "remedy": check.remedy}
            for check in checks
        ],
    }


def _summary(checks: Sequence[Check]) -> str:
    failed, warned = (sum(check.status == status for check in checks) for status in ("fail", "warn"))
    if not failed and not warned:
        return "All is well."
    return f"{failed} failed, {warned} warning{'' if warned == 1 else 's'}."
