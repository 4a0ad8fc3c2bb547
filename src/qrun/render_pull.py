"""What `qrun pull` prints: the first file of each model, or JSON; refusals and warnings on stderr."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from qrun.errors import QrunError
from qrun.model import Candidate
from qrun.render import print_json

__all__ = ["Pulled", "show_pulled", "show_refusal", "show_warnings"]


@dataclass(frozen=True, slots=True)
class Pulled:
    """What came of one MODEL. `path` is set when its files are here, `error` where something failed."""

    model: str
    candidate: Candidate | None = None
    path: Path | None = None
    error: QrunError | None = None


def show_pulled(pulled: Sequence[Pulled], *, as_json: bool) -> None:
    """Print the path of each model that is here now, or all as JSON."""
    if as_json:
        print_json({"models": [_as_json(one) for one in pulled]})
        return
    for one in pulled:
        if one.path is not None:
            click.echo(str(one.path))


def show_warnings(warnings: Sequence[str]) -> None:
    """Print them in one line: scripts count on at most one beside an error."""
    if warnings:
        click.echo(f"qrun: {' '.join(dict.fromkeys(warnings))}", err=True)


def show_refusal(error: QrunError) -> None:
    """Print a refusal that is not the last word of the command."""
    click.echo(f"qrun: {' '.join(str(error).split())}", err=True)


def _as_json(one: Pulled) -> dict[str, object]:
    candidate = one.candidate
    files = candidate.files if candidate else ()
    return {
        "model": one.model,
        "repo_id": candidate.repo_id if candidate else None,
        "revision": candidate.revision if candidate else None,
        "format": candidate.format if candidate else None,
        "quant": candidate.quant if candidate else None,
        "size_bytes": candidate.size_bytes if candidate else None,
        "files": [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in files],
        "path": None if one.path is None else str(one.path),
        "error": None
        if one.error is None
        else {
            "exit": one.error.exit_code,
            "name": one.error.name,
            "message": " ".join(str(one.error).split()),
            "nearest": list(one.error.nearest),
        },
    }
