"""GGUF files that Ollama, LM Studio or llama.cpp already hold on this disk: a read-only source.

They are found by sha256 where the tool's own record tells it, else by repo, name and size; they are used where they
lie, and nothing here writes, links or locks anything. A file that another tool may still be writing is not taken.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from qrun.errors import UnsafeFile
from qrun.model import Candidate, ModelFile
from qrun.store_layout import check_paths

__all__ = ["ForeignFiles", "Places", "Tool", "find_foreign"]

Tool = Literal["Ollama", "LM Studio", "llama.cpp"]

_MAGIC = b"GGUF"
_MOST_RECORD_BYTES = 4 * 2**20  # of a manifest, a settings file or an etag: all are a few KiB
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Places:
    """Where other tools keep models, whether they are there or not. `config` fills it from the environment.

    `ollama`: folders with `manifests` and `blobs`. `lmstudio`: its home folders, with `models` and `settings.json`.
    `llamacpp`: its caches, flat (`ORG_NAME_file.gguf`) as older builds write them, or in the Hub's layout.
    """

    ollama: tuple[Path, ...] = ()
    lmstudio: tuple[Path, ...] = ()
    llamacpp: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignFiles:
    """A candidate's files as another tool holds them; `paths` in the candidate's order."""

    tool: Tool
    paths: tuple[Path, ...]


def find_foreign(candidate: Candidate, places: Places) -> ForeignFiles | None:
    """Who holds all the files of a GGUF candidate from a repo, and where.

    Shards count only where they lie beside each other under names that tell the engine where the next one is, so never
    Ollama's. What may not be read is as if it were not there.
    """
    if candidate.format != "gguf" or candidate.repo_id is None or not _are_plain(candidate.files):
        return None
    held: Sequence[tuple[Tool, Iterator[Sequence[Path]]]] = (
        ("Ollama", _in_ollama(candidate, places.ollama)),
        ("LM Studio", _in_lmstudio(candidate, places.lmstudio)),
        ("llama.cpp", _in_llamacpp(candidate, places.llamacpp)),
    )
    for tool, sets in held:
        for paths in sets:
            if all(_is_whole(path, file) for path, file in zip(paths, candidate.files, strict=True)):
                return ForeignFiles(tool, tuple(paths))
    return None


def _in_ollama(candidate: Candidate, roots: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Blobs that a manifest names as a model: Ollama writes the manifest last, once the digest was checked."""
    sha256 = candidate.files[0].sha256
    if sha256 is None or len(candidate.files) > 1:
        return
    for root in roots:
        for name in (f"sha256-{sha256}", f"sha256:{sha256}"):  # before Ollama 0.1.31 with a colon
            blob = root / "blobs" / name
            if _is_file(blob) and sha256 in _digests_of_models(root / "manifests"):
                yield [blob]


def _digests_of_models(manifests: Path) -> Iterator[str]:
    """The sha256 of every model layer that a manifest (`HOST/NAMESPACE/MODEL/TAG`) names."""
    for manifest in _files_below(manifests):
        layers = _json(manifest).get("layers")
        for layer in layers if isinstance(layers, list) else ():
            if isinstance(layer, dict) and layer.get("mediaType") == "application/vnd.ollama.image.model":
                yield str(layer.get("digest")).removeprefix("sha256:")


def _in_lmstudio(candidate: Candidate, homes: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """`ORG/NAME/file` in each models folder; files of a sub-folder lie with or without it."""
    for models in dict.fromkeys(folder for home in homes for folder in _models_folders(home)):
        repo = models / (candidate.repo_id or "")
        yield [repo / file.path for file in candidate.files]
        yield [repo / PurePosixPath(file.path).name for file in candidate.files]


def _models_folders(home: Path) -> Iterator[Path]:
    yield home / "models"
    moved_to = _json(home / "settings.json").get("downloadsFolder")
    if isinstance(moved_to, str) and Path(moved_to).is_absolute():
        yield Path(moved_to)


def _in_llamacpp(candidate: Candidate, caches: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Flat files whose ETag does not speak against them; in the Hub's layout those of one snapshot."""
    repo_id = candidate.repo_id or ""
    for cache in caches:
        flat = [cache / f"{repo_id}/{file.path}".replace("/", "_") for file in candidate.files]
        if not any(map(_is_another, flat, candidate.files)):
            yield flat
        for snapshot in _entries(cache / f"models--{repo_id.replace('/', '--')}" / "snapshots"):
            linked = [snapshot / file.path for file in candidate.files]
            if not any(map(_leads_to_another, linked, candidate.files)):
                yield linked


def _is_another(path: Path, file: ModelFile) -> bool:
    """Whether the ETag that llama.cpp wrote beside `path` is the sha256 of other bytes. A git id tells nothing here."""
    etag = _text(path.with_name(f"{path.name}.etag")) or str(_json(path.with_name(f"{path.name}.json")).get("etag"))
    sha256 = etag.strip().strip('"')
    return bool(_SHA256.fullmatch(sha256)) and file.sha256 not in (None, sha256)


def _leads_to_another(path: Path, file: ModelFile) -> bool:
    """Whether a snapshot's link leads to a blob of another sha256."""
    try:
        blob = path.readlink().name
    except OSError:  # a file, as on Windows, or nothing at all
        return False
    return bool(_SHA256.fullmatch(blob)) and file.sha256 not in (None, blob)


def _is_whole(path: Path, file: ModelFile) -> bool:
    """Whether a GGUF of that size is there. Its first bytes are looked at: room for a download is often kept first."""
    try:
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            return False
        with path.open("rb") as opened:
            return opened.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _are_plain(files: Sequence[ModelFile]) -> bool:
    """Whether names from the Hub stay in the folder they are put to."""
    try:
        check_paths(file.path for file in files)
    except UnsafeFile:
        return False
    return True


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _files_below(folder: Path, depth: int = 6) -> Iterator[Path]:
    for entry in _entries(folder):
        if _is_file(entry):
            yield entry
        elif depth and not entry.is_symlink():
            yield from _files_below(entry, depth - 1)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            return opened.read(_MOST_RECORD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _json(path: Path) -> Mapping[str, object]:
    """A tool's own record; what is not there or cannot be read as an object is an empty one."""
    try:
        document = json.loads(_text(path) or "{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
