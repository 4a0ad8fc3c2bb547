"""The real listing that the emulated Hub can serve: repos by the names and sizes of their files (tests/data/hub)."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

__all__ = ["add_listing"]

DATA = Path(__file__).parent / "data" / "hub"


def add_listing(
    add_repo: Callable[..., str],
    add_alias: Callable[[str, str], None],
    *,
    tags: Literal["all", "old", "none"],
    copies: int,
) -> None:
    """Hand every repo of the listing to `add_repo`."""
    with gzip.open(DATA / "listing.jsonl.gz", "rt") as lines:
        for row in map(json.loads, lines):
            add_repo(row["repo_id"], dict(row["files"]))
