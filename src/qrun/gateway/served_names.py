"""The model behind the front: the names it answers to, and what `/v1/models` says of it.

Pure. Names are compared without case, spaces and `-_.`, as users write them (DESIGN section 5).
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ServedModel", "same_name_key"]

_IGNORED = str.maketrans("", "", " -_.")


def same_name_key(name: str) -> str:
    """What two spellings of one name have in common."""
    return name.casefold().translate(_IGNORED)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as clients see it. The first of `names` is its id; sizes and contexts are None where unknown."""

    names: tuple[str, ...]
    base_model: str
    n_ctx: int  # per request
    n_parallel: int
    repo_id: str | None = None
    quant: str | None = None
    format: str | None = None
    engine: str | None = None
    size_bytes: int | None = None
    n_ctx_train: int | None = None
    created_at_s: int = 0  # Unix time
    other_names: tuple[str, ...] = ()  # what the user called it; not shown

    @property
    def id(self) -> str:
        """The name that answers carry."""
        return self.names[0]

    def answers_to(self, name: str) -> bool:
        """Whether a request's `model` means this one."""
        asked = same_name_key(name)
        return any(asked in (same_name_key(known), self._with_quant(known)) for known in self._known())

    def as_entry(self) -> dict[str, object]:
        """The entry in `/v1/models`."""
        return {
            "id": self.id,
            "object": "model",
            "created": self.created_at_s,
            "owned_by": self.base_model.rpartition("/")[0] or "qrun",
            "aliases": list(self.names),
            "meta": {
                "base_model": self.base_model,
                "repo_id": self.repo_id,
                "format": self.format,
                "quant": self.quant,
                "engine": self.engine,
                "n_ctx": self.n_ctx,
                "n_ctx_train": self.n_ctx_train,
                "n_parallel": self.n_parallel,
                "size": self.size_bytes,
            },
        }

    def _known(self) -> Iterable[str]:
        bases = [name for name in (self.base_model, self.repo_id) if name]
        return (*self.names, *bases, *(name.rpartition("/")[2] for name in bases), *self.other_names)

    def _with_quant(self, known: str) -> str | None:
        return same_name_key(f"{known}:{self.quant}") if self.quant else None
