"""What `qrun outdated` found, for people and for programs."""

from collections.abc import Sequence

import click

from qrun.model import Candidate
from qrun.outdated import Behind, ChangedChoice
from qrun.render import Column, print_json, print_table

__all__ = ["show_outdated"]

_COLUMNS = (Column("Repo", keeps=False), Column("Branch"), Column("Stored"), Column("On the Hub"))
_SHORT = 8  # characters of a commit, as git shows them


def show_outdated(repos: Sequence[Behind], choices: Sequence[ChangedChoice], *, as_json: bool) -> None:
    """Print what is behind on stdout; to people also what to do about it."""
    if as_json:
        print_json({"repos": [_repo(one) for one in repos], "choices": [_choice(one) for one in choices]})
        return
    if repos:
        print_table(_COLUMNS, [_row(one) for one in repos])
    for choice in choices:
        click.echo(f"{choice.request.model}: {choice.why}")
    if choices:
        click.echo("qrun pull --update fetches what is chosen now, and keeps the old files until the new ones verify.")
    if not repos and not choices:
        click.echo("Nothing is behind.")


def _row(one: Behind) -> tuple[str, ...]:
    latest = one.latest_revision[:_SHORT] if one.latest_revision else "gone, or closed"
    return one.repo_id, one.ref, one.revision[:_SHORT], latest


def _repo(one: Behind) -> dict[str, object]:
    return {
        "repo_id": one.repo_id,
        "ref": one.ref,
        "revision": one.revision,
        "latest_revision": one.latest_revision,
    }


def _choice(one: ChangedChoice) -> dict[str, object]:
    return {
        "model": one.request.model,
        "goal": one.request.goal,
        "before": _candidate(one.before),
        "after": _candidate(one.after) if one.after else None,
        "why": one.why,
    }


def _candidate(candidate: Candidate) -> dict[str, object]:
    return {
        "repo_id": candidate.repo_id,
        "revision": candidate.revision,
        "path": candidate.files[0].path,
        "quant": candidate.quant,
    }
