"""A local repo's safetensors, MLX, EXL and other such weights as one candidate, and its pickles as a refused one.

What config.json says decides format and label; shapes and exact weights are left unknown, since no engine of today runs
these formats. Nothing is ever unpickled.
"""

import json
from collections.abc import Sequence
from typing import Any

from qrun.local_files import LocalFile, read_text_head
from qrun.model import Candidate, Defect
from qrun.quant_config import DTYPES, config_of, format_and_quant, pickled, safetensors_defect, weights_of_files

__all__ = ["pickle_candidate", "safetensors_candidate"]

_MAX_CONFIG_BYTES = 4 * 2**20


def safetensors_candidate(
    files: Sequence[LocalFile], *, repo_id: str | None, publisher: str | None, base_model: str
) -> Candidate | None:
    """The candidate that config.json and the safetensors files beside it make; None where they make none.

    A folder without config.json is none, and neither are formats that qrun does not know (compressed-tensors).
    """
    config = _config(files)
    weights = weights_of_files(files)
    if config is None or not weights:
        return None
    known = format_and_quant(config, repo_id or base_model)
    if known is None:
        return None
    return Candidate(
        repo_id=repo_id,
        revision=None,
        publisher=publisher,
        base_model=base_model,
        files=tuple(file.as_model_file() for file in weights),
        format=known[0],
        quant=known[1],
        defect=safetensors_defect(weights),
    )


def pickle_candidate(
    files: Sequence[LocalFile], *, repo_id: str | None, publisher: str | None, base_model: str
) -> Candidate | None:
    """All pickled weights of a folder as one candidate that is unsafe; None where there are none."""
    pickles = pickled(files)
    if not pickles:
        return None
    config = _config(files) or {}
    return Candidate(
        repo_id=repo_id,
        revision=None,
        publisher=publisher,
        base_model=base_model,
        files=tuple(file.as_model_file() for file in pickles),
        format="safetensors",  # what the same weights would be if they were safe
        quant=DTYPES.get(config.get("torch_dtype"), "unknown"),
        defect=Defect("unsafe", f"{pickles[0].path} is a pickle, which can run code when it is loaded"),
    )


def _config(files: Sequence[LocalFile]) -> dict[str, Any] | None:
    file = config_of(files)
    if file is None:
        return None
    try:
        config = json.loads(read_text_head(file.disk, _MAX_CONFIG_BYTES))
    except ValueError:  # no JSON: as if it were not there
        return None
    return config if isinstance(config, dict) else None
