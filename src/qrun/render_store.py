"""How the store is shown: what lies in it, what was fetched, checked and deleted; for people and for programs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from qrun.quant import quant_of_file
from qrun.render import Column, print_json, print_table
from qrun.store_ledger import Entry
from qrun.store_prune import Prunable
from qrun.store_remove import Removal
from qrun.store_scan import Leftover, Snapshot, StoredFile, StoredRepo, files_of, leftovers
from qrun.store_verify import Checked
from qrun.units import size

__all__ = ["removal_line", "show_checked", "show_pruned", "show_removed", "show_stored"]

_COMMIT_DIGITS = 12  # of a commit, for people; all commands take the start of one
_COLUMNS = (
    Column("Repo", keeps=False),
    Column("Revision"),
    Column("Quants", keeps=False),
    Column("Size", right=True),
    Column("Files", right=True),
)


def show_stored(cache_dir: Path, repos: Sequence[StoredRepo], foreign: Sequence[Entry], *, as_json: bool) -> None:
    """Print what is stored, what is unfinished, and what other tools hold that is used in place."""
    stored = [(repo, snapshot, files_of(snapshot)) for repo in repos for snapshot in repo.snapshots]
    stored = [row for row in stored if any(file.is_weights for file in row[2])]
    unfinished = [(repo, left) for repo in repos for left in leftovers(repo) if left.kind != "other"]
    if as_json:
        print_json(
            {
                "cache_dir": str(cache_dir),
                "repos": [_snapshot_json(*row) for row in stored],
                "partial": [_leftover_json(*row) for row in unfinished],
                "foreign": [_foreign_json(entry) for entry in foreign],
            }
        )
        return
    if stored:
        print_table(_COLUMNS, [_snapshot_row(*row) for row in stored])
    else:
        click.echo(f"No model is stored in {cache_dir}.")
    for line in (*_unfinished_lines(unfinished), *_foreign_lines(foreign)):
        click.echo(line)


def removal_line(removals: Sequence[Removal]) -> str:
    """What would be deleted, in one line."""
    named = ", ".join(f"{one.repo.repo_id} ({size(one.size_bytes)})" for one in removals)
    return f"{named}: {size(sum(one.size_bytes for one in removals))} in all"


def show_removed(removals: Sequence[Removal], *, as_json: bool) -> None:
    """Print what was deleted."""
    freed_bytes = sum(one.size_bytes for one in removals)
    if as_json:
        removed = [
            {"repo_id": one.repo.repo_id, "revisions": list(one.commits), "size_bytes": one.size_bytes}
            for one in removals
        ]
        print_json({"removed": removed, "freed_bytes": freed_bytes})
        return
    for one in removals:
        click.echo(f"Deleted {one.repo.repo_id}: {size(one.size_bytes)}")
    if len(removals) > 1:
        click.echo(f"Freed {size(freed_bytes)} in all.")


def show_checked(checked: Sequence[Checked], *, as_json: bool) -> None:
    """Print the files that are not whole, and how many are."""
    if as_json:
        print_json({"files": [_checked_json(one) for one in checked]})
        return
    for one in checked:
        if one.outcome not in ("whole", "unknown"):
            click.echo(f"{one.outcome}: {one.repo_id}/{one.path}")
    whole = [one for one in checked if one.outcome == "whole"]
    click.echo(f"{_files(len(whole))} of {size(sum(one.size_bytes or 0 for one in whole))} verified.")
    if unknown := sum(one.outcome == "unknown" for one in checked):
        click.echo(f"{_files(unknown)} not checked: no checksum is known of what is no link to a blob.")


def show_pruned(pruned: Sequence[Prunable], *, dry_run: bool, as_json: bool) -> None:
    """Print what was deleted, or would be."""
    freed_bytes = sum(one.size_bytes for one in pruned)
    if as_json:
        print_json({"dry_run": dry_run, "pruned": [_prunable_json(one) for one in pruned], "freed_bytes": freed_bytes})
        return
    for one in pruned:
        what = f"revision {one.commits[0][:_COMMIT_DIGITS]}" if one.commits else one.paths[0].name
        click.echo(f"{one.kind.replace('_', ' ')}: {one.repo_id}, {what}: {size(one.size_bytes)}")
    if not pruned:
        click.echo("Nothing to prune.")
        return
    click.echo(f"{'Would free' if dry_run else 'Freed'} {size(freed_bytes)}.")


def _snapshot_row(repo: StoredRepo, snapshot: Snapshot, files: Sequence[StoredFile]) -> list[str]:
    ref = next(iter(snapshot.refs), "")
    revision = snapshot.commit[:_COMMIT_DIGITS] + (f" ({'main' if 'main' in snapshot.refs else ref})" if ref else "")
    quants = dict.fromkeys(quant for file in files if file.is_weights and (quant := quant_of_file(file.path)))
    return [repo.repo_id, revision, " ".join(quants) or "-", size(_bytes_of(files)), str(len(files))]


def _bytes_of(files: Sequence[StoredFile]) -> int:
    """Bytes that several names share count once."""
    return sum({file.blob: file.size_bytes or 0 for file in files}.values())


def _snapshot_json(repo: StoredRepo, snapshot: Snapshot, files: Sequence[StoredFile]) -> dict[str, object]:
    return {
        "repo_id": repo.repo_id,
        "revision": snapshot.commit,
        "refs": list(snapshot.refs),
        "size_bytes": _bytes_of(files),
        "files": [{"path": one.path, "size_bytes": one.size_bytes, "sha256": one.sha256} for one in files],
    }


def _leftover_json(repo: StoredRepo, left: Leftover) -> dict[str, object]:
    return {
        "repo_id": repo.repo_id,
        "kind": left.kind,
        "path": str(left.path),
        "size_bytes": left.size_bytes,
        "by_qrun": left.is_ours,
    }


def _foreign_json(entry: Entry) -> dict[str, object]:
    return {"tool": entry.tool, "repo_id": entry.repo_id, "revision": entry.commit, "files": list(entry.held_at)}


def _checked_json(one: Checked) -> dict[str, object]:
    return {
        "repo_id": one.repo_id,
        "revision": one.commit,
        "path": one.path,
        "size_bytes": one.size_bytes,
        "outcome": one.outcome,
        "expected": one.expected,
        "found": one.found,
    }


def _prunable_json(one: Prunable) -> dict[str, object]:
    return {
        "repo_id": one.repo_id,
        "kind": one.kind,
        "revisions": list(one.commits),
        "paths": [str(path) for path in one.paths],
        "size_bytes": one.size_bytes,
    }


def _unfinished_lines(unfinished: Sequence[tuple[StoredRepo, Leftover]]) -> Iterator[str]:
    if unfinished:
        yield ""
        yield "Unfinished"
    for repo, left in unfinished:
        kind = "set aside, its checksum is wrong" if left.kind == "set_aside" else "partial"
        whose = "" if left.is_ours else ", by another tool"
        yield f"  {repo.repo_id}: {size(left.size_bytes)} ({kind}{whose})"


def _foreign_lines(foreign: Sequence[Entry]) -> Iterator[str]:
    if foreign:
        yield ""
        yield "Used in place"
    for entry in foreign:
        yield f"  {entry.repo_id} as {entry.tool} holds it: {', '.join(entry.held_at)}"


def _files(n: int) -> str:
    return "1 file" if n == 1 else f"{n} files"
