"""Which stored repos a name means, for what is done to them rather than with them: delete, verify.

The same rules as for MODEL elsewhere. Only repos that hold weights, or parts of them, answer: what other tools keep of
a repo without its weights (a tokenizer) is none of qrun's business.
"""

from collections.abc import Iterable
from pathlib import Path

from qrun.errors import ModelNotFound, UsageError
from qrun.local_repos import choose_repos, local_repo
from qrun.names import ModelRef, is_path, parse_model
from qrun.repo_match import distinct
from qrun.store_scan import StoredRepo, files_of, leftovers, stored_repos

__all__ = ["repos_named", "stored_bases", "stored_models"]


def stored_models(cache_dir: Path) -> tuple[StoredRepo, ...]:
    """The stored repos that hold a model, whole or in part."""
    return tuple(repo for repo in stored_repos(cache_dir) if _holds_model(repo))


def stored_bases(cache_dir: Path) -> tuple[str, ...]:
    """The base models of which something is stored, each once."""
    repos = [local_repo(repo.repo_id, repo.card_folder) for repo in stored_models(cache_dir)]
    return tuple(distinct(repo.bases[0] for repo in repos))


def repos_named(names: Iterable[str], cache_dir: Path) -> tuple[StoredRepo, ...]:
    """The stored repos that `names` mean, each once: repo ids, repo names or the names of base models.

    Raises ModelNotFound with the nearest names, AmbiguousModel, and UsageError for a name with a quant, a revision or
    a file behind it, or a path.
    """
    stored = {repo.repo_id: repo for repo in stored_models(cache_dir)}
    candidates = [local_repo(repo.repo_id, repo.card_folder) for repo in stored.values()]
    found: dict[str, StoredRepo] = {}
    for name in names:
        model = _whole_repo(name)
        if not candidates:
            raise ModelNotFound(name, f"{cache_dir}, where no model is stored", hint="Nothing has to be done.")
        chosen, _ = choose_repos(model, candidates, f"what is stored in {cache_dir}")
        found |= {repo.repo_id: stored[repo.repo_id] for repo in chosen}
    return tuple(found.values())


def _whole_repo(name: str) -> ModelRef:
    model = parse_model(name)
    if is_path(name):
        raise UsageError(f"{name} is a path. Name a stored repo or a model, as qrun list shows them.")
    if model.quant or model.revision or model.file:
        raise UsageError(f"{name} names a part of a repo. Name the repo or the model as a whole: {model.name}.")
    return model


def _holds_model(repo: StoredRepo) -> bool:
    in_snapshots = any(file.is_weights for snapshot in repo.snapshots for file in files_of(snapshot))
    return in_snapshots or bool(leftovers(repo))
