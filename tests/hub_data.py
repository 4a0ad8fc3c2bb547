"""The real listing that the emulated Hub can serve: repos by the names and sizes of their files (tests/data/hub).

What is a fact there and what is made up here (downloads, dates, sizes of what has none) stands in its README.md.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

from hub_data_files import Files, base_files, gguf_facts, made_up_files, mlx_config

__all__ = ["Listed", "Tags", "add_listing", "listing"]

DATA = Path(__file__).parent / "data" / "hub"
Tags = Literal["all", "old", "none"]

# Whose quants carry the relation in `tags="old"`: the publishers of the listing that fill in their cards.
_NEWER_PUBLISHERS = frozenset({"unsloth", "bartowski", "mlx-community", "lmstudio-community"})
_GATED_OWNERS = frozenset({"meta-llama", "google"})
# How many times the downloads of an unknown publisher: made up, for an order of popularity.
_POPULARITY = {"unsloth": 30, "bartowski": 30, "lmstudio-community": 20, "mlx-community": 8, "ggml-org": 20, "Qwen": 40}


@dataclass(frozen=True)
class Listed:
    """One repo of the listing. `base`: what it is a quant of, where that is known; None for a base itself."""

    repo_id: str
    files: Files
    base: str | None = None
    branches: Mapping[str, Files] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    library: str | None = None
    gguf: Mapping[str, object] | None = None
    is_base: bool = False

    @property
    def owner(self) -> str:
        """The part in front of the slash."""
        return self.repo_id.partition("/")[0]


def add_listing(
    add_repo: Callable[..., str],
    add_alias: Callable[[str, str], None],
    *,
    tags: Tags,
    copies: int,
    headers: bool,
) -> None:
    """Hand every repo of the listing to `add_repo`, and every old id to `add_alias`."""
    for listed in _repeated(listing(headers=headers), copies):
        tells = tags == "all" or (tags == "old" and listed.owner in _NEWER_PUBLISHERS)
        base = listed.base if tells else None
        add_repo(
            listed.repo_id,
            listed.files,
            base_model=base,
            relation="quantized" if base else None,
            tags=listed.tags,
            gated="manual" if listed.owner in _GATED_OWNERS else False,
            downloads=_downloads(listed),
            library=listed.library,
            last_modified=_last_modified(listed),
            branches=listed.branches,
            gguf=listed.gguf,
        )
    for row in _rows("bases.jsonl"):
        for alias in row.get("aliases", []):
            add_alias(alias, row["base_repo_id"])


@lru_cache(maxsize=2)
def listing(*, headers: bool = False) -> tuple[Listed, ...]:
    """Every repo: the quants of the listing, those of further formats, and the bases of both.

    With `headers`, the GGUFs of bases whose dimensions are known begin with a true header where one can be made.
    """
    configs = {row["base_repo_id"]: row["config"] for row in _rows("configs.jsonl")}
    if headers:
        from hub_data_headers import with_headers  # it needs gguf and numpy, which take their time

        return tuple(
            replace(one, files=with_headers(one.repo_id, one.files, one.base, configs[one.base]))
            if one.base in configs
            else one
            for one in listing()
        )
    base_of = {repo: row["base_repo_id"] for row in _rows("bases.jsonl") for repo in row["repos"]}
    bases = dict.fromkeys([*(row["base_repo_id"] for row in _rows("bases.jsonl")), *configs])
    bases |= dict.fromkeys(row["base_repo_id"] for row in _rows("other_formats.jsonl"))
    quants = [_quant(row, base_of.get(row["repo_id"]), configs) for row in _rows("listing.jsonl.gz")]
    quants += [_other(row, configs.get(row["base_repo_id"])) for row in _rows("other_formats.jsonl")]
    known = {quant.repo_id: quant for quant in quants}
    for base in bases:
        listed = known.get(base)  # some bases stand in the listing itself, with their files
        files = {**base_files(base, configs.get(base)), **(listed.files if listed else {})}
        known[base] = Listed(base, _without_made_up(files, listed), library="transformers", is_base=True)
    return tuple(known.values())


def _quant(row: Mapping, base: str | None, configs: Mapping[str, Mapping]) -> Listed:
    repo_id, files = row["repo_id"], dict(row["files"])
    config = configs.get(base) if base else None
    found = Listed(repo_id, files, base)
    if any(path.lower().endswith(".gguf") for path in files):
        # Unsloth puts the base's config.json beside its GGUFs; most others do not.
        beside = {"config.json": _bytes(config)} if config and found.owner == "unsloth" else {}
        return replace(found, files=files | beside, gguf=gguf_facts(config) if config else None)
    made = mlx_config(repo_id, config) if config else None
    bits = re.search(r"(\d)-?bit", repo_id, re.IGNORECASE)
    tags = ("mlx", *((f"{bits.group(1)}-bit",) if bits else ()))
    beside = {"config.json": _bytes(made)} if made else {}
    return replace(found, files=files | beside, tags=tags, library="mlx")


def _other(row: Mapping, config: Mapping | None) -> Listed:
    main, branches = made_up_files(row, config)
    kind = row["format"]
    tags = {"mlx": ("mlx",), "bnb-4bit": ("4-bit", "bitsandbytes"), "awq": ("4-bit", "awq")}.get(kind, (kind,))
    library = "mlx" if kind == "mlx" else "transformers"
    return Listed(row["repo_id"], main, row["base_repo_id"], branches, tags, library)


def _without_made_up(files: Files, listed: Listed | None) -> Files:
    """The listed files of a base stand for its weights: those made from its dimensions go."""
    if listed is None:
        return files
    return {path: held for path, held in files.items() if path in listed.files or not path.endswith(".safetensors")}


def _repeated(repos: tuple[Listed, ...], copies: int) -> Iterator[Listed]:
    yield from repos
    quants = [listed for listed in repos if not listed.is_base]
    for n in range(copies):
        for listed in quants:
            yield replace(listed, repo_id=f"{listed.owner}-copy{n + 1}/{listed.repo_id.partition('/')[2]}")


def _downloads(listed: Listed) -> int:
    return (50 + _stable(listed.repo_id, 5000)) * (400 if listed.is_base else _POPULARITY.get(listed.owner, 1))


def _last_modified(listed: Listed) -> str:
    year = 2023 if listed.owner == "TheBloke" else 2024 + _stable(listed.repo_id, 2)
    return f"{year}-{1 + _stable(listed.repo_id, 12):02}-{1 + _stable(listed.repo_id, 28):02}T12:00:00.000Z"


def _stable(name: str, below: int) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:6], "big") % below


def _bytes(config: Mapping) -> bytes:
    return json.dumps(config, indent=2).encode()


def _rows(name: str) -> list[dict]:
    path = DATA / name
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
