"""The display of a model's download, for the commands that run it."""

from contextlib import AbstractContextManager, nullcontext

from qrun.here import Here
from qrun.render_progress import show_transfer
from qrun.source import Report, quiet

__all__ = ["progress_of"]


def progress_of(here: Here) -> AbstractContextManager[Report]:
    """Shows what is fetched of the choice; nothing where its files are on this disk. Raises the decision's error."""
    files = here.to_fetch
    if not files:
        return nullcontext(quiet)
    return show_transfer(sum(file.size_bytes for file in files), len(files))
