"""Goal `finetune`: which weights to load in NF4 for QLoRA, and how. qrun names them and does not train.

Pure.
"""

from collections.abc import Sequence
from dataclasses import replace

from qrun.errors import FormatNotFound
from qrun.model import Candidate
from qrun.resolution import Handover, Rejection, Resolution

__all__ = ["finetune_resolution"]

_QUANT = "nf4"


def finetune_resolution(blank: Resolution, candidates: Sequence[Candidate]) -> Resolution:
    """A published NF4 repo where there is one, else the base itself, quantized while it is loaded."""
    published = [one for one in candidates if one.format == "bnb" and one.quant.lower() == _QUANT and not one.defect]
    base = blank.base_model or ""
    if published:
        chosen = published[0]
        load = f'AutoModelForCausalLM.from_pretrained("{chosen.repo_id}", device_map="auto")'
        why = "weights published in NF4"
    elif "/" in base:
        chosen = Candidate(base, None, base.partition("/")[0], base, (), "bnb", _QUANT)
        load = (
            f'AutoModelForCausalLM.from_pretrained("{base}", quantization_config=BitsAndBytesConfig('
            'load_in_4bit=True, bnb_4bit_quant_type="nf4"), device_map="auto")'
        )
        why = "no NF4 weights were found: bitsandbytes quantizes the base while it loads"
    else:
        formats = sorted({one.format for one in candidates})
        return replace(blank, error=FormatNotFound(blank.request.model, f"bnb {_QUANT}", formats))
    rejected = [_passed_over(one) for one in candidates if one is not chosen]
    return replace(blank, handover=Handover(chosen, load, (f"goal finetune: {why}",)), rejected=tuple(rejected))


def _passed_over(candidate: Candidate) -> Rejection:
    if candidate.defect:
        return Rejection(candidate, None, candidate.defect.reason, candidate.defect.detail)
    return Rejection(candidate, None, "filtered", "goal finetune loads NF4")
