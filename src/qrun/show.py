"""What a model is and what there is of it, without a choice: its dimensions, licence, chat template and quants.

Looked up by the rules of `resolve_here`, for no machine and no engine; nothing is kept or fetched. Beyond what finding
the quants asks, the Hub is asked for one repo's card and for one file that holds the chat template.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from qrun.compute import padded
from qrun.config import Config
from qrun.errors import QuantNotFound
from qrun.gguf_header import HeaderDamaged, read_header
from qrun.hub_candidates import parsed_config
from qrun.hub_client import HubClient
from qrun.hub_errors import AccessDenied, TokenRefused
from qrun.hub_info import RepoInfo
from qrun.hub_shapes import HeaderBudget, HeaderReader, known_shape, weighted
from qrun.local_files import read_text_head
from qrun.memory import kv_cache_bytes
from qrun.model import FORMATS, Candidate, ModelShape
from qrun.model_card import MAX_HEAD_BYTES, parse_card
from qrun.model_source import ModelSource, open_source
from qrun.names import parse_model
from qrun.quant import same_quant

__all__ = ["Card", "ChatTemplate", "Shown", "kv_cache_bytes_per_token", "show_model"]

_TEMPLATE_KEY = "tokenizer.chat_template"
# Beside safetensors, in the order in which transformers looks for a template.
_TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json")
_MOST_TEMPLATE_BYTES = 16 * 2**20  # of a tokenizer_config.json with its added tokens; the largest seen are 1 MiB
_MOST_CONFIG_BYTES = 4 * 2**20
_LICENSE_TAG = "license:"
_BATCH = 512  # tokens that a sliding window's cache holds beside it (`kv_cache_bytes`)
_STEP = 256  # cells of a cache come in such steps (`padded`)


@dataclass(frozen=True, slots=True)
class Card:
    """What is said of one repo as a whole. `gated`: its files are for those alone who accepted terms. Unknown is None.

    `repo_id` None: no repo of the Hub is known to be meant. `license` may be a quant's, where the base tells none.
    """

    repo_id: str | None = None
    gated: bool | None = None
    license: str | None = None
    downloads: int | None = None
    last_modified: str | None = None


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The chat template and the file it was read from, a GGUF's header among them. `present` None: not known."""

    present: bool | None = None
    repo_id: str | None = None
    path: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What is known of one model. `quants`: every candidate, by format, the larger first."""

    base_model: str
    card: Card
    shape: ModelShape | None
    n_params: int | None
    template: ChatTemplate
    quants: tuple[Candidate, ...]
    warnings: tuple[str, ...] = ()


def show_model(
    text: str, *, config: Config, models_dir: Path | None = None, refresh: bool = False, offline: bool = False
) -> Shown:
    """What is known of MODEL `text`; with a quant behind its colon, only that quant is listed.

    Raises UsageError, what `Source.find` raises, QuantNotFound, HubUnreachable, TokenRefused.
    """
    hub = replace(config.hub, offline=config.hub.offline or offline)
    opened = open_source(parse_model(text), config, hub, models_dir=models_dir, refresh=refresh)
    with closing(opened.source):
        found = opened.find()
        on_hub = opened.is_hub and not hub.offline
        candidates = found.candidates if on_hub else _with_configs(opened, found.candidates)
        wanted = _of_quant(opened, candidates)
        card = (_hub_card if on_hub else _disk_card)(opened, found.base_model, candidates)
        template = (_hub_template if on_hub else _disk_template)(opened, candidates)
    known = next((one for one in candidates if one.shape and one.weights), None)
    return Shown(
        base_model=found.base_model,
        card=card,
        shape=known.shape if known else None,
        n_params=known.weights.n_params if known and known.weights else None,
        template=template,
        quants=tuple(sorted((_marked(opened, one) for one in wanted), key=_rank)),
        warnings=found.warnings,
    )


def kv_cache_bytes_per_token(shape: ModelShape) -> int:
    """What one more token of context takes in an f16 KV cache, once every sliding window is full."""
    windows = [layer.window for layer in shape.layers if layer.window is not None]
    start = padded(max(windows, default=0) + _BATCH)
    at = partial(kv_cache_bytes, shape, n_parallel=1, kv_cache_type="f16")
    return (sum(at(n_ctx=start + _STEP)) - sum(at(n_ctx=start))) // _STEP


def _of_quant(opened: ModelSource, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """Those of the quant that MODEL names."""
    quant = opened.model.quant
    if quant is None:
        return candidates
    if of_quant := [one for one in candidates if same_quant(quant, one.quant)]:
        return of_quant
    raise QuantNotFound(opened.model.text, quant, sorted({one.quant for one in candidates}))


def _marked(opened: ModelSource, candidate: Candidate) -> Candidate:
    """As stored where it lies whole on the user's own disk; of the Hub's candidates the source knows."""
    if opened.is_hub:
        return candidate
    return replace(candidate, stored=candidate.defect is None or candidate.defect.reason != "incomplete")


def _rank(candidate: Candidate) -> tuple[int, int, str, str]:
    path = candidate.files[0].path if candidate.files else ""
    return FORMATS.index(candidate.format), -candidate.size_bytes, candidate.repo_id or "", path


def _hub_card(opened: ModelSource, base_model: str, candidates: Sequence[Candidate]) -> Card:
    """That of the repo that was named, where it is a quant's, else of the base; a licence from a quant's at need."""
    client, model = opened.client, opened.model
    repo_ids = {one.repo_id for one in candidates}
    if "/" in model.name and len(repo_ids) == 1:  # asked for under that name when it was found: no further call
        named = _info(client, model.name, model.revision)
        if isinstance(named, RepoInfo) and named.repo_id in repo_ids:
            return _card(named)
    base = _info(client, base_model) if "/" in base_model else None
    card = _card(base) if isinstance(base, RepoInfo) else Card(repo_id=base_model if "/" in base_model else None)
    if isinstance(base, AccessDenied):
        card = replace(card, gated=True)
    first = next((one for one in candidates if one.repo_id and one.defect is None), None)
    if card.license is None and first is not None:
        quants = _info(client, first.repo_id or "", first.revision)  # kept at its commit since it was found
        card = replace(card, license=_license(quants) if isinstance(quants, RepoInfo) else None)
    return card


def _info(client: HubClient, repo_id: str, revision: str | None = None) -> RepoInfo | AccessDenied | None:
    try:
        return client.repo(repo_id, revision)
    except TokenRefused:  # it tells of the token, and nothing of any repo
        raise
    except AccessDenied as denied:
        return denied


def _card(info: RepoInfo) -> Card:
    return Card(info.repo_id, info.gated, _license(info), info.downloads, info.last_modified)


def _license(info: RepoInfo) -> str | None:
    return next((tag.removeprefix(_LICENSE_TAG) for tag in info.tags if tag.startswith(_LICENSE_TAG)), None)


def _hub_template(opened: ModelSource, candidates: Sequence[Candidate]) -> ChatTemplate:
    """From a header on this disk, else by a ranged read, else from what lies beside some safetensors."""
    whole = _whole(candidates)
    gguf = sorted((one for one in whole if one.format == "gguf"), key=lambda one: not one.stored)[:1]
    for one in gguf:
        path = opened.files.path_of(one) if one.stored else None
        metadata = _metadata_of(path) if path else HeaderReader(opened.client, HeaderBudget()).metadata(one)
        if metadata is not None:
            return _of_header(metadata, one)
    for one in whole:
        names = {file.path.rpartition("/")[2]: file.path for file in one.files}
        if path_in_repo := next((names[name] for name in _TEMPLATE_FILES if name in names), None):
            return _of_file(one, path_in_repo, _small_file(opened.client, one, path_in_repo))
    return ChatTemplate()


def _small_file(client: HubClient, candidate: Candidate, path: str) -> str | None:
    repo_id, commit = candidate.repo_id or "", candidate.revision or ""
    try:
        content = client.small_file(repo_id, commit, path, most_bytes=_MOST_TEMPLATE_BYTES)
    except TokenRefused:
        raise
    except AccessDenied:
        return None
    return None if content is None else content.decode("utf-8", errors="replace")


def _disk_card(opened: ModelSource, base_model: str, candidates: Sequence[Candidate]) -> Card:
    """What the files' READMEs tell, the base's own first."""
    whole = sorted(_whole(candidates), key=lambda one: one.repo_id != base_model)
    cards = (parse_card(read_text_head(_root(opened, one) / "README.md", MAX_HEAD_BYTES)) for one in whole)
    license_id = next((card.license for card in cards if card.license), None)
    repo_ids = {one.repo_id for one in candidates}
    if None in repo_ids:  # files or a folder by their path
        return Card(license=license_id)
    is_alone = len(repo_ids) == 1 and "/" in opened.model.name
    return Card(repo_ids.pop() if is_alone else base_model if "/" in base_model else None, license=license_id)


def _disk_template(opened: ModelSource, candidates: Sequence[Candidate]) -> ChatTemplate:
    whole = _whole(candidates)
    for one in whole:
        if one.format == "gguf" and (metadata := _metadata_of(opened.source.local_path(one))) is not None:
            return _of_header(metadata, one)
    for one in whole:
        for name in _TEMPLATE_FILES:
            if text := read_text_head(_beside(opened, one) / name, _MOST_TEMPLATE_BYTES):
                return _of_file(one, str(PurePosixPath(one.files[0].path).parent / name), text)
    return ChatTemplate()


def _whole(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those whose files can be read."""
    return [one for one in candidates if one.defect is None]


def _beside(opened: ModelSource, candidate: Candidate) -> Path:
    """The folder of the candidate's first file."""
    return opened.source.local_path(candidate).parent


def _root(opened: ModelSource, candidate: Candidate) -> Path:
    """The folder of the candidate's repo; without one, of its first file."""
    path = opened.source.local_path(candidate)
    if candidate.repo_id is None:
        return path.parent
    return path.parents[len(PurePosixPath(candidate.files[0].path).parts) - 1]


def _with_configs(opened: ModelSource, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates on this disk with the shape that the config.json beside their safetensors tells."""
    return tuple(_with_config(opened, one) for one in candidates)


def _with_config(opened: ModelSource, candidate: Candidate) -> Candidate:
    if candidate.shape or candidate.defect or candidate.format == "gguf":
        return candidate
    text = read_text_head(_beside(opened, candidate) / "config.json", _MOST_CONFIG_BYTES)
    config = parsed_config(text.encode())
    known = known_shape(config) if config is not None else None
    return weighted(candidate, known) if known else candidate


def _metadata_of(path: Path) -> Mapping[str, object] | None:
    """What the header of a file on this disk says; None where it cannot be read."""
    try:
        with path.open("rb") as opened:

            def read(offset: int, n: int) -> bytes:
                opened.seek(offset)
                return opened.read(n)

            return read_header(read, path.stat().st_size).metadata
    except (HeaderDamaged, OSError):  # another tool's file may be gone, or not be open to us
        return None


def _of_header(metadata: Mapping[str, object], candidate: Candidate) -> ChatTemplate:
    text = metadata.get(_TEMPLATE_KEY)
    known = text if isinstance(text, str) and text else None
    return ChatTemplate(known is not None, candidate.repo_id, candidate.files[0].path, known)


def _of_file(candidate: Candidate, path: str, content: str | None) -> ChatTemplate:
    if content is None:
        return ChatTemplate()
    text = _template_of_config(content) if path.endswith(".json") else content
    return ChatTemplate(text is not None, candidate.repo_id, path, text)


def _template_of_config(content: str) -> str | None:
    """The `chat_template` of a tokenizer_config.json: a text, or a list of named ones, of which `default` counts."""
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):  # no JSON: as if it said nothing
        return None
    told = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(told, list):
        named = [one for one in told if isinstance(one, dict)]
        told = next((one.get("template") for one in named if one.get("name") == "default"), None)
    return told if isinstance(told, str) and told else None
