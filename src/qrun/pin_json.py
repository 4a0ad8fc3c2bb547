"""A kept decision as JSON and back: the pin, and all candidates it was chosen among.

Pure. The candidates are kept so that the next `resolve` can name every loser without asking the Hub. A model's quants
share a shape and layers repeat, so both are written once: a few kilobytes where the plain form would take megabytes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any, get_args

from qrun.hub_info import HubFile
from qrun.model import Candidate, Defect, LayerShape, ModelFile, ModelShape, Weights
from qrun.pin import Pin
from qrun.placement import Mode
from qrun.request import KV_TYPES
from qrun.source import FoundModel

__all__ = ["SCHEMA", "KeptDecision", "PinDamaged", "decision_of", "json_of"]

SCHEMA = 1
_RUN_LENGTH = ("layer_bytes", "expert_bytes")


class PinDamaged(ValueError):
    """A document that is no kept decision of this schema."""


@dataclass(frozen=True, slots=True)
class KeptDecision:
    """What was decided, among what. `request` are the options that it answers, `machine` whom it was decided for."""

    pin: Pin
    found: FoundModel
    request: dict[str, Any]
    machine: dict[str, Any]

    @property
    def chosen(self) -> Candidate:
        """The candidate that was chosen. Raises LookupError where the document was made by another hand."""
        for candidate in self.found.candidates:
            if self.pin.names(candidate):
                return candidate
        raise LookupError(f"{self.pin.path} of {self.pin.repo_id}")


def json_of(decision: KeptDecision) -> dict[str, Any]:
    """The document of `decision`."""
    shapes = list(dict.fromkeys(one.shape for one in decision.found.candidates if one.shape is not None))
    numbers = {shape: number for number, shape in enumerate(shapes)}
    return {
        "schema": SCHEMA,
        "request": decision.request,
        "machine": decision.machine,
        "pin": asdict(decision.pin),
        "base_model": decision.found.base_model,
        "warnings": list(decision.found.warnings),
        "shapes": [_shape_json(shape) for shape in shapes],
        "candidates": [_candidate_json(one, numbers) for one in decision.found.candidates],
    }


def decision_of(document: object) -> KeptDecision:
    """The decision in `document`. Raises PinDamaged."""
    try:
        return _decision(document)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PinDamaged(f"{type(error).__name__}: {error}") from error


def _decision(document: Any) -> KeptDecision:
    if document["schema"] != SCHEMA:
        raise PinDamaged(f"schema {document['schema']}")
    shapes = [_shape(one) for one in document["shapes"]]
    candidates = tuple(_candidate(one, shapes) for one in document["candidates"])
    found = FoundModel(document["base_model"], candidates, tuple(document["warnings"]))
    decision = KeptDecision(_pin(document["pin"]), found, dict(document["request"]), dict(document["machine"]))
    _ = decision.chosen  # a pin that names none of its candidates is damaged
    return decision


def _pin(document: dict[str, Any]) -> Pin:
    pin = Pin(**document)
    texts = (pin.path, pin.engine, pin.decided_at)
    numbers = (pin.n_ctx, pin.n_parallel)
    if not all(isinstance(one, str) for one in texts) or not all(type(one) is int and one > 0 for one in numbers):
        raise PinDamaged("a value of the wrong kind")
    if pin.kv_cache_type not in KV_TYPES or pin.mode not in get_args(Mode):
        raise PinDamaged(f"{pin.kv_cache_type}, {pin.mode}")
    return pin


def _shape_json(shape: ModelShape) -> dict[str, Any]:
    return _plain(shape) | {"layers": [[_plain(layer), count] for layer, count in _runs(shape.layers)]}


def _shape(document: dict[str, Any]) -> ModelShape:
    layers = tuple(LayerShape(**layer) for layer, count in document["layers"] for _ in range(count))
    return ModelShape(**(document | {"layers": layers}))


def _candidate_json(candidate: Candidate, numbers: dict[ModelShape, int]) -> dict[str, Any]:
    return _plain(candidate) | {
        "files": [_file_json(file) for file in candidate.files],
        "shape": None if candidate.shape is None else numbers[candidate.shape],
        "weights": None if candidate.weights is None else _weights_json(candidate.weights),
        "defect": None if candidate.defect is None else _plain(candidate.defect),
    }


def _candidate(document: dict[str, Any], shapes: Sequence[ModelShape]) -> Candidate:
    made = {
        "files": tuple(_file(file) for file in document["files"]),
        "shape": None if document["shape"] is None else shapes[document["shape"]],
        "weights": None if document["weights"] is None else _weights(document["weights"]),
        "defect": None if document["defect"] is None else Defect(**document["defect"]),
    }
    return Candidate(**(document | made))


def _file_json(file: ModelFile) -> list[Any]:
    blob_id = file.blob_id if isinstance(file, HubFile) else None
    return [file.path, file.size_bytes, file.sha256, blob_id]


def _file(document: list[Any]) -> ModelFile:
    path, size_bytes, sha256, blob_id = document
    if blob_id is None:
        return ModelFile(path, size_bytes, sha256)
    return HubFile(path, size_bytes, sha256, blob_id)


def _weights_json(weights: Weights) -> dict[str, Any]:
    return _plain(weights) | {name: _runs(getattr(weights, name)) for name in _RUN_LENGTH}


def _weights(document: dict[str, Any]) -> Weights:
    layers = {name: tuple(size for size, count in document[name] for _ in range(count)) for name in _RUN_LENGTH}
    types = tuple((name, size_bytes) for name, size_bytes in document["type_bytes"])
    return Weights(**(document | layers | {"type_bytes": types}))


def _runs(items: Sequence[Any]) -> list[list[Any]]:
    return [[item, len(list(same))] for item, same in groupby(items)]


def _plain(value: Any) -> dict[str, Any]:
    """The fields as they are; what is nested is put in its place by the caller."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
