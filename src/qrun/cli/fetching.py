"""The display of a model's download, for the commands that run it."""

from contextlib import AbstractContextManager, nullcontext

from qrun.here import Here
from qrun.render_progress import show_transfer
from qrun.source import Report, quiet

__all__ = ["progress_of"]


def progress_of(here: Here) -> AbstractContextManager[Report]:
    """Shows what is fetched of the choice; nothing where its files are on this disk. Raises the decision's error."""
    candidate = here.resolution.require().candidate
    if candidate.stored or here.pins is None:
        return nullcontext(quiet)
    return show_transfer(candidate.size_bytes, len(candidate.files))
