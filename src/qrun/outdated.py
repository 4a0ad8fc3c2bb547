"""What of the stored is behind: repos whose commit moved on the Hub, and kept choices that would differ today.

Asks the Hub anew, whatever was cached. Changes nothing: `qrun pull --update` does.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from qrun.changes import is_same_choice, what_changed
from qrun.config import Config
from qrun.errors import UsageError
from qrun.hardware import Hardware
from qrun.here import Here, resolve_here
from qrun.hub_client import HubClient
from qrun.hub_errors import AccessDenied, HubUnreachable, TokenRefused
from qrun.kept_files import KeptFiles
from qrun.model import Candidate
from qrun.pin_json import KeptDecision
from qrun.pins import PinStore, machine_of, request_of
from qrun.probe import probe_hardware, select_gpus
from qrun.request import Request
from qrun.store import Store
from qrun.store_ledger import Ledger
from qrun.store_scan import StoredRepo, files_of, stored_repos

__all__ = ["Behind", "ChangedChoice", "changed_choices", "kept_here", "moved_repos"]


@dataclass(frozen=True, slots=True)
class Behind:
    """A stored repo whose branch stands elsewhere now. `latest_revision` None: the Hub has it no more, or hides it."""

    repo_id: str
    ref: str
    revision: str
    latest_revision: str | None


@dataclass(frozen=True, slots=True)
class ChangedChoice:
    """A request that would be answered otherwise today. `after` None: by nothing."""

    request: Request
    before: Candidate
    after: Candidate | None
    why: str


def moved_repos(config: Config) -> tuple[Behind, ...]:
    """The repos in the Hub's cache, whoever stored them, that hold weights and are behind.

    Raises HubUnreachable, TokenRefused.
    """
    stored = [one for repo in stored_repos(config.hub.cache_dir) for one in _branches(repo)]
    with closing(HubClient(config.hub, refresh=True)) as client:
        latest = client.together([partial(_latest, client, one) for one in stored])
    pairs = zip(stored, latest, strict=True)
    return tuple(
        Behind(repo_id, ref, revision, commit) for (repo_id, ref, revision), commit in pairs if commit != revision
    )


def changed_choices(config: Config, kept: Sequence[KeptDecision]) -> tuple[ChangedChoice, ...]:
    """Those of `kept` that the same request would not come to today. Raises HubUnreachable, TokenRefused."""
    changed = []
    for decision in kept:
        request = request_of(decision.request)
        with closing(resolve_here(request, config=config, refresh=True, remember=False, to_fetch=True)) as here:
            if isinstance(here.resolution.error, HubUnreachable | TokenRefused):
                raise here.resolution.error
            if found := _changed(request, decision, here):
                changed.append(found)
    return tuple(changed)


def kept_here(config: Config) -> tuple[KeptDecision, ...]:
    """The decisions for this machine whose choice is stored; those for GPUs that it has no more are left out."""
    hardware = probe_hardware(environ=config.environ)
    files = KeptFiles(Store(config.hub, None), config.places, Ledger(config.ledger_dir))
    kept = (one for one in PinStore(config.pins_dir).all() if _is_for(hardware, one))
    return tuple(one for one in kept if files.path_of(one.chosen) is not None)


def _is_for(hardware: Hardware, decision: KeptDecision) -> bool:
    try:
        gpus = select_gpus(hardware.gpus, request_of(decision.request).gpus)
    except UsageError:
        return False
    return decision.machine == machine_of(replace(hardware, gpus=gpus))


def _branches(repo: StoredRepo) -> Iterator[tuple[str, str, str]]:
    """Each branch of a repo that is stored with weights: repo_id, ref, commit."""
    for snapshot in repo.snapshots:
        if any(file.is_weights for file in files_of(snapshot)):
            for ref in snapshot.refs:
                yield repo.repo_id, ref, snapshot.commit


def _latest(client: HubClient, stored: tuple[str, str, str]) -> str | None:
    repo_id, ref, _ = stored
    try:
        info = client.repo(repo_id, ref)
    except TokenRefused:  # it tells of the token, and nothing of any repo
        raise
    except AccessDenied:
        return None
    return info.commit if info else None


def _changed(request: Request, decision: KeptDecision, here: Here) -> ChangedChoice | None:
    before = decision.chosen
    chosen = here.resolution.chosen
    if chosen is not None and is_same_choice(before, chosen.candidate):
        return None
    if here.resolution.error is not None:
        return ChangedChoice(request, before, None, str(here.resolution.error))
    why = what_changed(decision.pin, before, here.resolution)
    return ChangedChoice(request, before, chosen.candidate if chosen else None, why)
