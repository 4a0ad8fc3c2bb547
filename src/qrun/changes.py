"""What a new decision changed against the one before, in one sentence for people.

Pure.
"""

from qrun.model import Candidate
from qrun.pin import Pin
from qrun.resolution import Resolution

__all__ = ["is_same_choice", "what_changed"]

_SHORT = 8  # characters of a commit, as git shows them


def is_same_choice(before: Candidate, after: Candidate) -> bool:
    """Whether two candidates are the same bytes of one repo: a commit that only touched the README is no change."""
    if (before.repo_id, len(before.files)) != (after.repo_id, len(after.files)):
        return False
    pairs = zip(before.files, after.files, strict=True)
    return all(
        (one.path, one.size_bytes, one.sha256) == (other.path, other.size_bytes, other.sha256) for one, other in pairs
    )


def what_changed(pin: Pin, before: Candidate, resolution: Resolution) -> str:
    """The difference between the choice of `pin`, which was `before`, and that of `resolution`, with the reason."""
    if resolution.chosen is None:
        return f"Decided anew: nothing is chosen any more, {_name(before)} was."
    after = resolution.chosen.candidate
    if is_same_choice(before, after):
        return "Decided anew: the choice is the same." if pin.names(after) else _moved(before, after, "the same files")
    if (before.repo_id, before.quant) == (after.repo_id, after.quant):
        return _moved(before, after, "other bytes under the same name")
    return f"Decided anew: {_name(after)} takes the place of {_name(before)}: {_why_lost(before, resolution)}."


def _moved(before: Candidate, after: Candidate, what: str) -> str:
    commits = f"{(before.revision or '')[:_SHORT]} to {(after.revision or '')[:_SHORT]}"
    return f"Decided anew: {after.repo_id} moved from commit {commits}, with {what}."


def _why_lost(before: Candidate, resolution: Resolution) -> str:
    """The new decision's own reason against the old choice, by its place in the repo: its commit may have moved."""
    for one in resolution.rejected:
        candidate = one.candidate
        same_place = candidate.repo_id == before.repo_id and candidate.files[:1] and before.files[:1]
        if same_place and candidate.files[0].path == before.files[0].path and candidate.ref == before.ref:
            return f"{one.reason.replace('_', ' ')}, {one.detail}"
    return "its repo does not offer it any more"


def _name(candidate: Candidate) -> str:
    return f"{candidate.quant} of {candidate.repo_id}"
