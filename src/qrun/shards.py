"""Which GGUF files of a repo make up one quant: shards put together, and what is no model left out.

Pure: works on names and sizes, so that a folder's files and a Hub repo's are grouped by the same rule.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Generic, Protocol, TypeVar

from qrun.quant import kind_of_file, shard_of_file

__all__ = ["HasPath", "ShardSet", "missing_shard", "shard_sets"]


class HasPath(Protocol):
    """A file by its path in the repo."""

    @property
    def path(self) -> str:
        """With `/`, relative to the repo; of local files outside any repo absolute."""
        ...


F = TypeVar("F", bound=HasPath)


@dataclass(frozen=True, slots=True)
class ShardSet(Generic[F]):
    """The files that make up one quant, in order; `missing` are the numbers of shards that are not there."""

    files: tuple[F, ...]
    count: int = 1
    missing: tuple[int, ...] = ()


def shard_sets(files: Iterable[F]) -> tuple[ShardSet[F], ...]:
    """The GGUF models among `files` with their shards together, by path. Files that are no models are left out."""
    sets: dict[tuple[str, int], dict[int, F]] = {}
    for file in sorted(files, key=lambda file: file.path):
        if not file.path.lower().endswith(".gguf") or kind_of_file(file.path) != "model":
            continue
        name, number, count = shard_of_file(file.path) or (file.path, 1, 1)
        sets.setdefault((name, count), {})[number] = file
    return tuple(_shard_set(shards, count) for (_, count), shards in sets.items())


def missing_shard(shards: ShardSet[F]) -> str:
    """Which shard of an incomplete set is missing, in words."""
    there = shards.files[0].path
    name = (shard_of_file(there) or (there, 1, 1))[0]
    first = PurePosixPath(f"{name}-{shards.missing[0]:05d}-of-{shards.count:05d}.gguf").name
    more = f" and {len(shards.missing) - 1} more" if len(shards.missing) > 1 else ""
    return f"shard {shards.missing[0]} of {shards.count} is missing: {first}{more}"


def _shard_set(shards: Mapping[int, F], count: int) -> ShardSet[F]:
    missing = tuple(number for number in range(1, count + 1) if number not in shards)
    return ShardSet(tuple(shards[number] for number in sorted(shards)), count, missing)
