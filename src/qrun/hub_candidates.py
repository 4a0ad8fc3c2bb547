"""One repo of the Hub as candidates: its files grouped, labelled and checked by the rules of local folders.

Pure: works on what the Hub said of the repo. Shapes and weights are `hub_shapes`' part. Nothing is ever unpickled.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qrun.errors import UnsafeFile
from qrun.gguf_quant import has_imatrix, quant_label
from qrun.hub_info import HubFile, RepoInfo
from qrun.model import Candidate, Defect, Format
from qrun.quant import split_quant
from qrun.quant_config import (
    DTYPES,
    config_of,
    format_and_quant,
    pickled,
    safetensors_defect,
    weights_of_files,
)
from qrun.shards import ShardSet, missing_shard, shard_sets
from qrun.store_layout import RepoLayout, check_paths

__all__ = [
    "RepoState",
    "bpw_in_name",
    "bpw_of_branch",
    "candidates_of_state",
    "config_path",
    "is_weights",
    "label_of_branch",
    "parsed_config",
]

# What an engine reads beside safetensors. Code (`*.py`) is never fetched: no engine is told to trust it.
_ENGINE_FILES = re.compile(
    r"(?:config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|preprocessor_config"
    r"|processor_config|image_processor|video_preprocessor_config|quantize_config|quantization_config|quant_config"
    r"|chat_template|params|tekken|hf_quant_config)\.json"
    r"|[\w.-]+\.safetensors\.index\.json|merges\.txt|vocab\.txt|[\w.-]*tiktoken[\w.]*|[\w.-]+\.jinja"
    r"|(?:tokenizer|spiece|sentencepiece\.bpe)\.model(?:\.v[0-9]+)?"
)
_BRANCH = re.compile(r"([0-9]{1,2}(?:[._][0-9]{1,3})?)(?:-?bpw)?(?:[-_].*)?", re.IGNORECASE)
# TheBloke's and others' of GPTQ: `gptq-4bit-32g-actorder_True`; `-1g` is one group for all.
_GPTQ_BRANCH = re.compile(r"gptq-([2-8])bit-(-1|[0-9]+)g?(?:-.*)?", re.IGNORECASE)
_BPW_IN_NAME = re.compile(r"(?<![0-9.])([0-9]{1,2}(?:\.[0-9]+)?)-?bpw", re.IGNORECASE)
_BITS_IN_NAME = re.compile(r"(?:int|w)([2-8])(?![0-9])|([2-8])-?bit", re.IGNORECASE)
_LEAST_BPW, _MOST_BPW = 1.0, 16.0


@dataclass(frozen=True, slots=True)
class RepoState:
    """A repo at one branch, tag or commit, `ref`, with its config.json where it was read.

    `told` is the format that its name or tags tell, for want of a config.json. `denied`: the Hub lets us see its files'
    names, not their bytes.
    """

    info: RepoInfo
    ref: str
    config: Mapping[str, Any] | None = None
    told: Format | None = None
    denied: bool = False


def candidates_of_state(state: RepoState, base_model: str) -> tuple[Candidate, ...]:
    """Every candidate in the repo, GGUF first, incomplete and unsafe ones with their defect."""
    files = [file for file in state.info.files if not _is_hidden(file.path)]
    found = [_gguf(state, shards) for shards in shard_sets(files)]
    found += [one for one in (_safetensors(state, files), _pickles(state, files)) if one]
    return tuple(_told(state, one, base_model) for one in found)


def bpw_of_branch(name: str) -> str | None:
    """The label of an EXL branch by its name (`6_5`, `4.25bpw`, `4_0bpw_h6`); None for any other branch."""
    match = _BRANCH.fullmatch(name)
    if match is None:
        return None
    bpw = float(match[1].replace("_", "."))
    return f"{bpw}bpw" if _LEAST_BPW <= bpw <= _MOST_BPW else None


def label_of_branch(name: str) -> str | None:
    """The label of a branch that holds a quant of its own, EXL or GPTQ; None for any other."""
    if gptq := _GPTQ_BRANCH.fullmatch(name):
        return f"{gptq[1]}bit" if gptq[2] == "-1" else f"{gptq[1]}bit-g{gptq[2]}"
    return bpw_of_branch(name)


def bpw_in_name(name: str) -> str | None:
    """The bits per weight that a repo's name says (`M-4.65bpw-h6-exl2`): such a repo holds one width."""
    found = _BPW_IN_NAME.findall(name)
    return f"{float(found[-1])}bpw" if found else None


def config_path(paths: Iterable[str]) -> str | None:
    """The config.json nearest to the repo's top."""
    found = config_of([HubFile(path, 0) for path in paths if set(path.split("/")).isdisjoint(("", ".", ".."))])
    return found.path if found else None


def parsed_config(content: bytes | None) -> Mapping[str, Any] | None:
    """A config.json's object; None where it is none."""
    if content is None:
        return None
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):  # no JSON: as if it were not there
        return None
    return config if isinstance(config, dict) else None


def is_weights(file: HubFile | str) -> bool:
    """Whether it is one of a candidate's weight files, not one of those that an engine reads beside them."""
    path = file if isinstance(file, str) else file.path
    return path.lower().endswith((".gguf", ".safetensors"))


def _gguf(state: RepoState, shards: ShardSet[HubFile]) -> Candidate:
    first = shards.files[0]
    defect = Defect("incomplete", missing_shard(shards)) if shards.missing else _empty(shards.files)
    return Candidate(
        repo_id=state.info.repo_id,
        revision=state.info.commit,
        publisher=None,
        base_model="",
        files=shards.files,
        format="gguf",
        quant=quant_label(first.path, {}, None),
        has_imatrix=has_imatrix(first.path, {}),
        defect=defect,
    )


def _safetensors(state: RepoState, files: Sequence[HubFile]) -> Candidate | None:
    weights = weights_of_files(files)
    if not weights:
        return None
    name = state.info.repo_id.rpartition("/")[2]
    known = format_and_quant(state.config, name) if state.config is not None else None
    if state.config is None or (state.told in ("exl2", "exl3") and known and known[0] == "safetensors"):
        known = _told_format(state, name)
    if known is None:
        return None
    of_branch = label_of_branch(state.ref) if known[0] in ("exl2", "exl3", "gptq") else None  # the config is main's
    return Candidate(
        repo_id=state.info.repo_id,
        revision=state.info.commit,
        publisher=None,
        base_model="",
        files=(*weights, *_engine_files(files, weights)),
        format=known[0],
        quant=of_branch or known[1],
        defect=safetensors_defect(weights),
    )


def _told_format(state: RepoState, name: str) -> tuple[Format, str] | None:
    """Format and label by tags, branch and name, for want of a config.json; plain weights without one are none."""
    told, label = state.told, split_quant(name)[1]
    if state.denied:
        return told or "safetensors", label or "unknown"
    if told in ("exl2", "exl3"):
        return told, bpw_of_branch(state.ref) or bpw_in_name(name) or "unknown"
    if told == "fp8":
        return told, "fp8"
    if told == "bnb":
        return told, "int8" if "8bit" in name.lower() else "nf4"
    if told in ("mlx", "awq", "gptq"):
        bits = _BITS_IN_NAME.search(name)
        named = f"{bits[1] or bits[2]}bit" if bits else "4bit" if told == "awq" else "unknown"
        return told, label if label and "bit" in label else named
    return None


def _pickles(state: RepoState, files: Sequence[HubFile]) -> Candidate | None:
    found = pickled(files)
    if not found:
        return None
    dtype = (state.config or {}).get("torch_dtype")
    return Candidate(
        repo_id=state.info.repo_id,
        revision=state.info.commit,
        publisher=None,
        base_model="",
        files=tuple(found),
        format="safetensors",  # what the same weights would be if they were safe
        quant=DTYPES.get(dtype, "unknown") if isinstance(dtype, str) else "unknown",
        defect=Defect("unsafe", f"{found[0].path} is a pickle, which can run code when it is loaded"),
    )


def _engine_files(files: Sequence[HubFile], weights: Sequence[HubFile]) -> list[HubFile]:
    """What lies beside the weights and belongs to the model."""
    folder = weights[0].path.rpartition("/")[0]
    beside = [file for file in files if file.path.rpartition("/")[0] == folder]
    return [file for file in beside if _ENGINE_FILES.fullmatch(file.path.rpartition("/")[2])]


def _told(state: RepoState, candidate: Candidate, base_model: str) -> Candidate:
    info = state.info
    return replace(
        candidate,
        publisher=info.repo_id.rpartition("/")[0] or None,
        base_model=base_model,
        defect=_unsafe_name(state, candidate) or candidate.defect or _closed(state),
        ref=state.ref,
        downloads=info.downloads,
        last_modified=info.last_modified,
    )


def _unsafe_name(state: RepoState, candidate: Candidate) -> Defect | None:
    """Names that the store would refuse: better known before the candidate is chosen."""
    try:
        RepoLayout(Path(), state.info.repo_id)
        check_paths([state.ref])
        check_paths(file.path for file in candidate.files)
    except UnsafeFile as unsafe:
        return Defect("unsafe", unsafe.why)
    return None


def _closed(state: RepoState) -> Defect | None:
    return Defect("access_denied", f"{state.info.repo_id} is gated, and is not open to you") if state.denied else None


def _empty(files: Iterable[HubFile]) -> Defect | None:
    empty = next((file.path for file in files if not file.size_bytes), None)
    return Defect("incomplete", f"{empty.rpartition('/')[2]} is empty (0 bytes)") if empty else None


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))
