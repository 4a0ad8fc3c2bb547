"""What the emulated Hub's API says of repos, commits and files, in the words that huggingface_hub's classes read.

Where huggingface_hub's source leaves open what the Hub answers, a comment here says that it is a guess.
"""

import hashlib
from collections.abc import Collection, Mapping

from hub_emulator_blobs import Blob
from hub_emulator_repos import Commit, Repo

__all__ = ["EXPANDABLE", "commit_row", "entries", "entry", "info", "listed", "refs", "whoami"]

Json = dict[str, object]

# huggingface_hub's ExpandModelProperty_T.
EXPANDABLE = frozenset(
    [
        "author",
        "baseModels",
        "cardData",
        "childrenModelCount",
        "config",
        "createdAt",
        "disabled",
        "downloads",
        "downloadsAllTime",
        "evalResults",
        "gated",
        "gguf",
        "inference",
        "inferenceProviderMapping",
        "lastModified",
        "library_name",
        "likes",
        "mask_token",
        "model-index",
        "pipeline_tag",
        "private",
        "resourceGroup",
        "safetensors",
        "sha",
        "siblings",
        "spaces",
        "tags",
        "transformersInfo",
        "trendingScore",
        "usedStorage",
        "widgetData",
    ]
)
_ALWAYS = ("_id", "id")
_SHORT = (*_ALWAYS, "likes", "trendingScore", "private", "downloads", "tags", "pipeline_tag", "library_name")
_LISTED = (*_SHORT, "createdAt", "modelId")
_FULL = (*_LISTED, "author", "gated", "disabled", "sha", "lastModified", "siblings")
_INFO = (*_FULL, "cardData", "config", "gguf", "usedStorage", "spaces", "model-index", "mask_token", "widgetData")


def listed(repo: Repo, *, full: bool, card: bool, config: bool, expand: Collection[str]) -> Json:
    """One row of a listing. `full` brings the files' names and the commit, `expand` exactly the properties named."""
    if expand:
        return _told(repo, repo.main, (*_ALWAYS, *expand))
    more = [name for name, wanted in (("cardData", card), ("config", config)) if wanted]
    return _told(repo, repo.main, (*(_FULL if full else _LISTED), *more))


def info(repo: Repo, commit: Commit, *, blobs: bool, expand: Collection[str]) -> Json:
    """One repo at `commit`; `blobs` gives its files' sizes and ids."""
    told = _told(repo, commit, (*_ALWAYS, *expand) if expand else _INFO)
    if blobs:
        told["siblings"] = [_sibling(path, blob) for path, blob in commit.blobs.items()]
    return told


def entries(commit: Commit, folder: str, *, recursive: bool) -> list[Json]:
    """What a tree lists: the files under `folder` and its folders; only those right in it unless `recursive`."""
    prefix = f"{folder}/" if folder else ""
    names = sorted([*commit.folders, *commit.blobs])
    inside = [name for name in names if name.startswith(prefix) and name != folder]
    return [entry(commit, name) for name in inside if recursive or "/" not in name.removeprefix(prefix)]


def entry(commit: Commit, path: str) -> Json:
    """One file or folder as tree and paths-info tell it."""
    blob = commit.blobs.get(path)
    if blob is None:
        # A folder's id is git's hash of its tree; any stable one does, nothing is fetched by it.
        oid = hashlib.sha1(f"{commit.sha}\0{path}".encode(), usedforsecurity=False).hexdigest()
        return {"type": "directory", "oid": oid, "size": 0, "path": path}
    told: Json = {"type": "file", "oid": blob.git_id, "size": blob.size_bytes, "path": path}
    if blob.lfs:  # here the sha256 is called `oid`; in a repo's info it is `sha256`
        told["lfs"] = {"oid": blob.sha256, "size": blob.size_bytes, "pointerSize": len(blob.pointer)}
    return told


def refs(repo: Repo, *, pull_requests: bool) -> Json:
    """Branches and tags with their commits. Pull requests are branches named refs/pr/N."""
    requests = {name: commit for name, commit in repo.branches.items() if name.startswith("refs/")}
    told: Json = {
        "branches": [_ref(n, f"refs/heads/{n}", c) for n, c in repo.branches.items() if n not in requests],
        "converts": [],
        "tags": [_ref(name, f"refs/tags/{name}", commit) for name, commit in repo.tagged.items()],
    }
    if pull_requests:
        told["pullRequests"] = [_ref(name.rpartition("/")[2], name, commit) for name, commit in requests.items()]
    return told


def commit_row(commit: Commit) -> Json:
    """One line of a branch's history."""
    return {
        "id": commit.sha,
        "title": commit.title,
        "message": "",
        "authors": [{"user": "emulator"}],
        "date": commit.date,
    }


def whoami(name: str) -> Json:
    """Who a token belongs to."""
    return {
        "type": "user",
        "id": _object_id(name),
        "name": name,
        "fullname": name,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": "read"}},
    }


def _told(repo: Repo, commit: Commit, names: Collection[str]) -> Json:
    """The properties `names` that the Hub has a value for: it leaves out what it does not know."""
    known = _known(repo, commit)
    values = ((name, known[name]() if callable(known[name]) else known[name]) for name in names if name in known)
    return {name: value for name, value in values if value is not None}


def _known(repo: Repo, commit: Commit) -> Mapping[str, object]:
    return {
        "_id": _object_id(repo.repo_id),
        "id": repo.repo_id,
        "modelId": repo.repo_id,
        "author": repo.author,
        "sha": commit.sha,
        "lastModified": commit.date,
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": repo.downloads,
        "downloadsAllTime": repo.downloads * 10,
        "likes": repo.downloads // 1000,
        "trendingScore": repo.downloads // 10000,
        "library_name": repo.library,
        "tags": lambda: list(repo.tags),
        "cardData": lambda: repo.card,
        "config": lambda: repo.config,
        "gguf": lambda: dict(repo.gguf) if repo.gguf else None,
        # A guess at its form, made from what ModelInfo reads: {"relation", "models": [{"id"}]}.
        "baseModels": lambda: _bases(repo),
        "usedStorage": lambda: sum(blob.size_bytes for blob in commit.blobs.values()),
        "spaces": [],
        "siblings": lambda: [{"rfilename": path} for path in commit.blobs],
    }


def _bases(repo: Repo) -> Json | None:
    if not repo.base_models:
        return None
    return {"relation": repo.relation, "models": [{"_id": _object_id(base), "id": base} for base in repo.base_models]}


def _sibling(path: str, blob: Blob) -> Json:
    told: Json = {"rfilename": path, "blobId": blob.git_id, "size": blob.size_bytes}
    if blob.lfs:
        told["lfs"] = {"sha256": blob.sha256, "size": blob.size_bytes, "pointerSize": len(blob.pointer)}
    return told


def _ref(name: str, ref: str, commit: Commit) -> Json:
    return {"name": name, "ref": ref, "targetCommit": commit.sha}


def _object_id(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:24]
