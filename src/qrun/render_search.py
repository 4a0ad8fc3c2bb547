"""What `qrun search` found, for people and for programs."""

from collections.abc import Sequence

import click

from qrun.render import Column, print_json, print_table
from qrun.resolution import Choice
from qrun.search import Hit
from qrun.units import size

__all__ = ["show_hits"]

_COLUMNS = (
    Column("Base model", keeps=False),
    Column("Fits here"),
    Column("Size", right=True),
    Column("Tokens/s", right=True),
    Column("KLD", right=True),
    Column("Repo", keeps=False),
)
_UNKNOWN = "-"
_MOST_WORDS = 60  # of a refusal, in a cell


def show_hits(words: str, hits: Sequence[Hit], *, n_more: int, as_json: bool) -> None:
    """Print them on stdout; `n_more` were found and not looked at."""
    if as_json:
        print_json({"words": words, "bases": [_as_json(hit) for hit in hits], "n_more": n_more})
        return
    print_table(_COLUMNS, [_row(hit) for hit in hits])
    if n_more:
        click.echo(f"{n_more} more: give more words, or --limit.")


def _row(hit: Hit) -> tuple[str, ...]:
    chosen = hit.chosen
    if chosen is None:
        why = " ".join((hit.why_not or "").split())
        return hit.base.repo_id, "nothing", _UNKNOWN, _UNKNOWN, _UNKNOWN, why[:_MOST_WORDS]
    candidate = chosen.candidate
    speed = f"{chosen.speed.decode_tps:.0f}" if chosen.speed else _UNKNOWN
    kld = f"{chosen.quality.kld:.4f}"
    return hit.base.repo_id, candidate.quant, size(candidate.size_bytes), speed, kld, candidate.repo_id or _UNKNOWN


def _as_json(hit: Hit) -> dict[str, object]:
    return {
        "repo_id": hit.base.repo_id,
        "downloads": hit.base.downloads,
        "gated": hit.base.gated,
        "chosen": None if hit.chosen is None else _choice(hit.chosen),
        "why_not": hit.why_not,
    }


def _choice(chosen: Choice) -> dict[str, object]:
    candidate = chosen.candidate
    return {
        "repo_id": candidate.repo_id,
        "revision": candidate.revision,
        "format": candidate.format,
        "quant": candidate.quant,
        "size_bytes": candidate.size_bytes,
        "engine": chosen.engine,
        "n_ctx": chosen.n_ctx,
        "placement": chosen.placement.mode,
        "decode_tps": None if chosen.speed is None else round(chosen.speed.decode_tps, 2),
        "kld": round(chosen.quality.kld, 6),
        "stored": candidate.stored,
    }
