"""What the Hub says of a repo, as values: one row of a listing, and one repo with its files."""

from dataclasses import dataclass

from qrun.model import ModelFile

__all__ = ["HubFile", "RepoInfo", "RepoListing"]


@dataclass(frozen=True, slots=True)
class RepoListing:
    """One row of a search: what the Hub tells of a repo without its files' sizes. Unknown is None."""

    repo_id: str
    commit: str | None = None
    tags: tuple[str, ...] = ()
    downloads: int | None = None
    last_modified: str | None = None  # ISO 8601, UTC
    gated: bool = False
    library_name: str | None = None
    paths: tuple[str, ...] | None = None  # of its files, where the listing was asked for them


@dataclass(frozen=True, slots=True)
class HubFile(ModelFile):
    """A file of a repo. `blob_id` is git's id (a sha1 over a short head and the bytes); LFS files have a sha256 too.

    The name of its blob in the Hub's cache is the sha256 of an LFS file, and the git id of any other.
    """

    blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class RepoInfo:
    """One repo at one commit, with every file's size."""

    repo_id: str
    commit: str
    files: tuple[HubFile, ...]
    tags: tuple[str, ...] = ()
    downloads: int | None = None
    last_modified: str | None = None
    gated: bool = False
    library_name: str | None = None
