"""Which smaller model of the same family there is, from a small table of families (`data/families.toml`).

Pure. What the table does not hold is not known: no name is ever made up.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["Member", "smaller_of_family"]

# The usual 4-bit file: what a size is promised at (quality.toml, Q4_K_M of Llama-3-8B).
_Q4_K_M_BPW = 4.9


class Member(NamedTuple):
    """A model of a family. `n_params` as published."""

    repo_id: str
    n_params: float

    @property
    def q4_k_m_bytes(self) -> int:
        """About the size of its weights in Q4_K_M."""
        return int(self.n_params * _Q4_K_M_BPW / 8)


def smaller_of_family(base_model: str, most_bytes: int) -> Member | None:
    """The largest model of the base's family that is smaller and in Q4_K_M takes at most `most_bytes` of weights."""
    family, n_params = _family_of(base_model)
    fitting = [one for one in family if one.n_params < n_params and one.q4_k_m_bytes <= most_bytes]
    return max(fitting, key=lambda one: one.n_params, default=None)


def _family_of(base_model: str) -> tuple[list[Member], float]:
    """The members that may be named, and the parameters of the one that was asked for (0: not in the table)."""
    for family in _data()["family"]:
        members = [_member(entry) for entry in family["members"]]
        for one in [*members, *map(_member, family.get("also", ()))]:
            if one.repo_id.casefold() == base_model.casefold():
                return members, one.n_params
    return [], 0.0


def _member(entry: tuple[str, float]) -> Member:
    return Member(entry[0], entry[1] * 1e9)


@cache
def _data() -> Mapping[str, Any]:
    return tomllib.loads((files("qrun") / "data" / "families.toml").read_text(encoding="utf-8"))
