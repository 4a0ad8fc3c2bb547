"""Model names: how users write them, and which repos they mean.

Pure: works on names alone.
"""

from dataclasses import dataclass

__all__ = ["ModelRef"]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What MODEL says: a name, repo_id, path or address, and the quant or revision written behind it."""

    text: str
    name: str
    quant: str | None = None
    revision: str | None = None
