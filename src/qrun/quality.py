"""How much a quantization loses: expected KL divergence against the full-precision model.

Pure. All figures are on the scale of source A (llama.cpp tools/perplexity/README.md, Llama-3-8B).
"""

from dataclasses import dataclass

__all__ = ["Quality"]


@dataclass(frozen=True, slots=True)
class Quality:
    """Mean KL divergence and where the figure is from ("estimate" where no measured row is near)."""

    kld: float
    source: str
