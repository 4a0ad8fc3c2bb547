"""Whose files are preferred among equals: the model's own organisation, then those that `data/publishers.toml` names.

Pure. Publishers come and go, so trust is data.
"""

import tomllib
from functools import cache
from importlib.resources import files

__all__ = ["is_trusted", "publisher_rank"]


def publisher_rank(publisher: str | None, base_model: str) -> int:
    """Its place in the order of trust: -1 the base's own organisation, then the named, last all others alike."""
    name = (publisher or "").casefold()
    if name and name == base_model.rpartition("/")[0].casefold():
        return -1
    return _ranks().get(name, len(_ranks()))


def is_trusted(publisher: str) -> bool:
    """Whether the data file names it."""
    return publisher.casefold() in _ranks()


@cache
def _ranks() -> dict[str, int]:
    data = tomllib.loads((files("qrun") / "data" / "publishers.toml").read_text(encoding="utf-8"))
    return {name.casefold(): rank for rank, name in enumerate(data["trusted"])}
