"""Shapes and weights of the Hub's candidates: from one config.json for all of them, and exactly from a few headers.

Headers are read over ranged requests, as far as they reach and no further. What all reads of one decision may cost is a
`HeaderBudget`; a header that is damaged or beyond it never ends the decision.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from qrun.gguf_header import GgufHeader, HeaderDamaged, read_header
from qrun.gguf_quant import Understood, contradiction, has_imatrix, quant_label, understood
from qrun.hub_candidates import is_weights
from qrun.hub_client import BLOCK_BYTES, HubClient
from qrun.hub_errors import AccessDenied, TokenRefused
from qrun.model import Candidate, Defect, ModelFile, ModelShape
from qrun.quant import label_bits
from qrun.shape import ShapeUnknown
from qrun.shape_config import params_of_config, shape_of_config
from qrun.source import MOST_FINALISTS
from qrun.store_layout import blob_key
from qrun.units import MIB
from qrun.weights import layer_of
from qrun.weights_formula import Params, params_of, weights_by_formula

__all__ = [
    "MOST_HEADER_BYTES",
    "HeaderBudget",
    "HeaderReader",
    "KnownShape",
    "known_shape",
    "weighted",
]

MOST_HEADER_BYTES = 48 * MIB  # of one decision (DESIGN section 6)
_MAGIC = b"GGUF"
# Bytes of a header per token of the vocabulary: 36 to 61 in the models looked at, of 49k to 262k tokens.
_HEADER_BYTES_A_TOKEN = 60
# Half of the bits that a label promises, or twice what 16-bit weights take: such a file is not this model. Closer
# judgement needs its header, for the parameters of some models are known to a few percent only.
_GROSS_PART = 0.5
_GROSS_BPW = 33.0
# Converters round a vocabulary up to such a multiple, and leave out rows that config.json counts and no token has
# (Gemma 3: 262,144 of 262,208). A fine-tune adds a token or two.
_PADDING, _MOST_PADDING = 8, 256
_MOST_LEFT_OUT = 0.01


@dataclass(frozen=True, slots=True)
class KnownShape:
    """A base model's dimensions and the parameters of its parts."""

    shape: ModelShape
    params: Params


class BudgetSpent(Exception):
    """No further header may be read in this decision."""


class HeaderBudget:
    """What headers may still cost in one decision, for all threads."""

    def __init__(self, most_bytes: int = MOST_HEADER_BYTES) -> None:
        self._left = most_bytes
        self._lock = threading.Lock()

    def take(self, n_bytes: int) -> None:
        """Account for a read. Raises BudgetSpent where it would go beyond."""
        with self._lock:
            if n_bytes > self._left:
                raise BudgetSpent
            self._left -= n_bytes


class _Share:
    """One candidate's part of the budget: finalists are read at once, and one must not take the others' part."""

    def __init__(self, budget: HeaderBudget) -> None:
        self._budget = budget
        self._left = MOST_HEADER_BYTES // MOST_FINALISTS

    def take(self, n_bytes: int) -> None:
        """As the whole's."""
        if n_bytes > self._left:
            raise BudgetSpent
        self._budget.take(n_bytes)
        self._left -= n_bytes


def known_shape(config: Mapping[str, Any]) -> KnownShape | None:
    """What a config.json tells; None where the architecture is not known from there."""
    try:
        return KnownShape(shape_of_config(config), params_of_config(config))
    except ShapeUnknown:
        return None


def weighted(candidate: Candidate, known: KnownShape) -> Candidate:
    """The candidate with the base's shape and, by formula, the weights that its bytes and label make of it."""
    size_bytes = sum(file.size_bytes for file in candidate.files if is_weights(file.path))
    if not size_bytes or candidate.defect:
        return candidate
    weights = weights_by_formula(
        known.shape, format=candidate.format, quant=candidate.quant, size_bytes=size_bytes, params=known.params
    )
    defect = _not_this_model(candidate.quant, weights.bpw) if candidate.format == "gguf" else None
    return replace(candidate, shape=known.shape, weights=weights, defect=defect)


class HeaderReader:
    """Reads headers of GGUF candidates on the Hub within one decision's budget."""

    def __init__(self, client: HubClient, budget: HeaderBudget) -> None:
        self._client = client
        self._budget = budget

    def sharpened(self, candidate: Candidate, base: ModelShape | None = None) -> Candidate:
        """The candidate as its files' headers have it, or with its defect; as it was where they cannot be had.

        `base`: the dimensions that the base's config.json tells; a file of others is of another model, whatever name
        and tags say. Raises HubUnreachable, TokenRefused.
        """
        found = self._understood(candidate)
        if found is None:
            return candidate
        if found.is_part:
            defect = Defect("mislabelled", "its header says that it is no model by itself")
            return replace(candidate, shape=None, weights=None, defect=defect)
        if found.defect:
            return replace(candidate, shape=None, weights=None, defect=found.defect)
        if base and found.shape and (why := _another_model(found.shape, base)):
            why = f"it is not {candidate.base_model}: {why}"
            return replace(candidate, shape=None, weights=None, defect=Defect("mislabelled", why))
        path = candidate.files[0].path
        quant = quant_label(path, found.metadata, found.weights)
        return replace(
            candidate,
            quant=quant,
            shape=found.shape,
            weights=found.weights,
            has_imatrix=has_imatrix(path, found.metadata),
            has_chat_template="tokenizer.chat_template" in found.metadata,
            defect=contradiction(quant, found.weights),
        )

    def metadata(self, candidate: Candidate) -> Mapping[str, object] | None:
        """What the header of its first file says beside the tensors; None where it cannot be had.

        Raises HubUnreachable, TokenRefused.
        """
        headers = self._headers(replace(candidate, files=candidate.files[:1]))
        return headers[0].metadata if isinstance(headers, list) else None

    def shape(self, candidates: Sequence[Candidate]) -> KnownShape | None:
        """The shape that all of them have, from the header of the smallest; None where it cannot be read."""
        whole = [one for one in candidates if one.format == "gguf" and one.defect is None]
        smallest = min(whole, key=lambda one: (one.size_bytes, one.repo_id or ""), default=None)
        if smallest is None:
            return None
        headers = self._headers(smallest)
        if headers is None or isinstance(headers, Defect):
            return None
        found = understood(headers)
        if found.shape is None:
            return None
        n_layer = found.shape.n_layer
        tensors = [one for header in headers for one in header.tensors if layer_of(one.name) < n_layer]
        return KnownShape(found.shape, params_of(tensors, n_layer))

    def _understood(self, candidate: Candidate) -> Understood | None:
        headers = self._headers(candidate)
        if isinstance(headers, Defect):
            return Understood({}, defect=headers)
        return understood(headers) if headers else None

    def _headers(self, candidate: Candidate) -> list[GgufHeader] | Defect | None:
        """Those of all its files, in order; None where they may not be read any more, or are not there to read."""
        n_vocab = candidate.shape.n_vocab if candidate.shape else 0
        share = _Share(self._budget)
        headers = []
        for number, file in enumerate(candidate.files):
            ahead = n_vocab * _HEADER_BYTES_A_TOKEN if number == 0 else 0  # shards but the first have no vocabulary
            header = self._header(candidate, file, share, ahead)
            if header is None:
                return None
            if isinstance(header, Defect):
                detail = header.detail
                if len(candidate.files) > 1:
                    detail = f"{PurePosixPath(file.path).name}: {detail}"
                return replace(header, detail=detail)
            headers.append(header)
        return headers

    def _header(
        self, candidate: Candidate, file: ModelFile, share: _Share, ahead_bytes: int
    ) -> GgufHeader | Defect | None:
        window = _Window(self._client, share, candidate, file, ahead_bytes)
        try:
            if window.is_hole():
                return None
            if window.read(0, len(_MAGIC)) != _MAGIC:
                return Defect("mislabelled", f"it is no GGUF file ({file.size_bytes:,} bytes)")
            return read_header(window.read, file.size_bytes)
        except HeaderDamaged as damage:
            return Defect("incomplete", str(damage))
        except TokenRefused:
            raise
        except AccessDenied:
            return Defect("access_denied", f"{candidate.repo_id} is gated, and is not open to you")
        except BudgetSpent:
            return None


class _Window:
    """The start of one file, read on as far as it is looked at; the first read takes what the header likely needs."""

    def __init__(
        self, client: HubClient, share: _Share, candidate: Candidate, file: ModelFile, ahead_bytes: int
    ) -> None:
        self._client = client
        self._share = share
        self._candidate = candidate
        self._file = file
        self._ahead_bytes = ahead_bytes
        self._held = bytearray()
        self._whole = False

    def read(self, offset: int, n: int) -> bytes:
        """The bytes [offset, offset + n), fewer at the file's end. Raises BudgetSpent, AccessDenied, HubUnreachable."""
        end = offset + n
        if end > len(self._held) and not self._whole:
            self._read_on(max(end, self._ahead_bytes))
        return bytes(self._held[offset:end])

    def is_hole(self) -> bool:
        """Whether the start is nothing but zeros: a mirror that keeps names and sizes alone has such stand-ins.

        They tell nothing of the model, so what its label and size tell stands; a download would still be verified.
        """
        start = self.read(0, BLOCK_BYTES)
        return len(start) == BLOCK_BYTES and not any(start)

    def _read_on(self, end: int) -> None:
        start = len(self._held)
        stop = min(-(-end // BLOCK_BYTES) * BLOCK_BYTES, self._file.size_bytes)
        self._share.take(stop - start)
        candidate, file = self._candidate, self._file
        key = blob_key(file) or f"{candidate.repo_id}@{candidate.revision}/{file.path}"
        self._held += self._client.read(
            candidate.repo_id or "", candidate.revision or "", file.path, key=key, start=start, n=stop - start
        )
        self._whole = len(self._held) < stop or stop == file.size_bytes


def _another_model(found: ModelShape, base: ModelShape) -> str | None:
    """How a header's dimensions differ from the base's; None where they may be the same model's.

    Heads and feed-forward widths are left out: configs of some families tell them otherwise than headers do.
    """
    for what, has, wanted in (
        ("layers", found.n_layer, base.n_layer),
        ("embedding length", found.n_embd, base.n_embd),
        ("experts", found.n_expert, base.n_expert),
    ):
        if has != wanted:
            return f"{what} {has:,}, not {wanted:,}"
    added = found.n_vocab - base.n_vocab
    is_padding = 0 <= added < _MOST_PADDING and found.n_vocab % _PADDING == 0
    if (added > 0 and not is_padding) or -added > base.n_vocab * _MOST_LEFT_OUT:
        return f"vocabulary of {found.n_vocab:,}, not {base.n_vocab:,}"
    return None


def _not_this_model(quant: str, bpw: float) -> Defect | None:
    """Where a file's size and its label cannot both be true of this model."""
    bits = label_bits(quant)
    if bits is None or _GROSS_PART * bits <= bpw <= _GROSS_BPW:
        return None
    return Defect("mislabelled", f"named {quant}, but its size makes {bpw:.1f} bits per weight of this model")
