"""Models on the Hub: a name becomes a base, the base its quants, and those become candidates.

A decision is at most four round trips deep and asks at most 60 times: searches at once; the base's quants by
relation and by name; the files of the repos that are worth it, with config.json files for formats and the shape; late
branches. What finalists' headers say is read in `sharpened`, within `hub_shapes`' budget.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from qrun.errors import NotAModel
from qrun.hub_client import HubClient
from qrun.hub_settings import DEFAULT_ENDPOINT
from qrun.kept_files import KeptFiles
from qrun.local_repos import with_file
from qrun.model import Candidate, ModelShape
from qrun.model_folder import refuse_if_all_damaged
from qrun.names import ModelRef
from qrun.source import MOST_FINALISTS, FoundModel, Report, quiet

__all__ = ["HubSource"]


class _Sharpener(Protocol):
    """What `hub_shapes.HeaderReader` does for the finalists."""

    def sharpened(self, candidate: Candidate, base: ModelShape | None = None) -> Candidate:
        """The candidate as its header has it."""
        ...


class HubSource:
    """The Hugging Face Hub, or a mirror of it."""

    def __init__(self, client: HubClient, files: KeptFiles, *, endpoint: str = DEFAULT_ENDPOINT) -> None:
        self._client = client
        self._files = files
        self._endpoint = endpoint
        self._reader: _Sharpener | None = None
        self._base: ModelShape | None = None  # as its config.json has it
        self._sharpened: dict[tuple[str | None, str | None, str], Candidate] = {}

    @property
    def description(self) -> str:
        """Which Hub."""
        return f"the Hub ({self._endpoint})"

    def find(self, model: ModelRef) -> FoundModel:
        """Every quant of the base that `model` names; a quant repo's id, or a revision, is that repo alone.

        A gated base does not block its open quants. Raises ModelNotFound with the nearest names, AmbiguousModel,
        NotAModel, AccessDenied where all that was asked for is closed, FileDamaged (or UnsafeFile) where no file of the
        model can be taken, HubUnreachable, TokenRefused.
        """
        # What looks at the Hub takes 25 ms to import: a decision that is stored does without.
        from qrun.hub_candidates import candidates_of_state
        from qrun.hub_files import look_into
        from qrun.hub_gather import Gathered
        from qrun.hub_lookup import look_up
        from qrun.hub_shapes import HeaderBudget, HeaderReader, weighted

        reader = HeaderReader(self._client, HeaderBudget())
        self._reader, self._sharpened = reader, {}
        gathered = Gathered(self._client)
        found = look_up(model, gathered, self.description)
        looked = look_into(found, gathered)
        candidates = tuple(one for state in looked.states for one in candidates_of_state(state, found.base))
        candidates = with_file(model, candidates, self.description)
        if not candidates:
            where = found.repos[0].repo_id if found.repos else found.base
            raise NotAModel(where, "it holds no GGUF file, and no config.json with safetensors.")
        if all(one.defect and one.defect.reason == "access_denied" for one in candidates):
            raise gathered.denied[candidates[0].repo_id or ""]
        refuse_if_all_damaged(candidates, lambda one: Path(one.repo_id or ""))
        # Who asked for one repo gets it, whatever it is.
        self._base = looked.shape.shape if looked.shape and not found.alone else None
        known = looked.shape or reader.shape(candidates)
        shaped = [weighted(one, known) for one in candidates] if known else candidates
        return FoundModel(found.base, tuple(map(self._looked_up_here, shaped)), (*found.warnings, *looked.warnings))

    def sharpened(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The GGUF candidates among the first three with exact weights, shape and label, from their headers.

        A damaged header, or one of other dimensions than the base's, becomes the candidate's defect. Raises
        HubUnreachable, TokenRefused.
        """
        reader = self._reader
        if reader is None:  # nothing was found yet, so these are no candidates of the Hub
            return tuple(candidates)

        unread = [one for one in candidates if _key(one) not in self._sharpened]
        wanted = [one for one in unread if one.format == "gguf" and not one.defect]
        wanted = wanted[: MOST_FINALISTS - len(self._sharpened)]
        read = self._client.together([partial(reader.sharpened, one, self._base) for one in wanted])
        self._sharpened |= {_key(one): sharp for one, sharp in zip(wanted, read, strict=True)}
        return tuple(self._sharpened.get(_key(one), one) for one in candidates)

    def local_path(self, candidate: Candidate, report: Report = quiet) -> Path:
        """The candidate's first file, fetched into the Hub's cache where it is nowhere on this disk, and verified.

        Raises HubUnreachable, AccessDenied, DiskFull, ChecksumWrong, FileDamaged, UnsafeFile.
        """
        return self._files.path(candidate, report)

    def close(self) -> None:
        """End the connections to the Hub."""
        self._client.close()

    def _looked_up_here(self, candidate: Candidate) -> Candidate:
        if candidate.defect:
            return candidate
        return replace(candidate, stored=self._files.path_of(candidate) is not None)


def _key(candidate: Candidate) -> tuple[str | None, str | None, str]:
    return candidate.repo_id, candidate.revision, candidate.files[0].path
