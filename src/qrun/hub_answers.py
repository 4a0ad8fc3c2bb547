"""The Hub's answers as values: listings, repos with their files, branches.

Pure. By hand rather than through huggingface_hub's `ModelInfo`, which belongs to its own session (`hub_transport` says
why ours is another) and takes three times as long (1,000 repos with 10,600 files: 20 ms against 6, and 4 for the JSON).
What is not of the expected shape is ValueError: a proxy's login page and a broken mirror answer 200 too. Fields that
the Hub leaves out are unknown, not wrong.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qrun.hub_info import HubFile, RepoInfo, RepoListing

__all__ = ["EXPAND", "Reply", "branches_of", "listing_of", "repo_of", "rows_of"]

# What a listing is asked for (huggingface_hub's ExpandModelProperty_T); file sizes are not to be had there.
EXPAND = ("siblings", "tags", "downloads", "lastModified", "gated", "library_name", "sha")

_SHA256_DIGITS, _SHA1_DIGITS = 64, 40


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer as it came. Header names are compared without case.

    `next_page`: the address of the Link header's `next`; `from_storage`: the Hub sent us on to whom it is from.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    next_page: str | None = None
    from_storage: bool = False


def rows_of(body: bytes) -> list[Any]:
    """The rows of one page of a listing. Raises ValueError."""
    rows = json.loads(body)
    if not isinstance(rows, list):
        raise ValueError("no list of repos")  # noqa: TRY004 - of the text, as json's own
    return rows


def listing_of(body: bytes) -> tuple[RepoListing, ...]:
    """The repos of `/api/models`, in their order. Raises ValueError."""
    return tuple(_listing(row) for row in rows_of(body))


def repo_of(body: bytes) -> RepoInfo:
    """The answer of `/api/models/ORG/NAME?blobs=true`. Raises ValueError."""
    row = json.loads(body)
    listing = _listing(row)
    siblings = row.get("siblings")
    if listing.commit is None or not isinstance(siblings, list):
        raise ValueError("no commit or no files")
    return RepoInfo(
        repo_id=listing.repo_id,
        commit=listing.commit,
        files=tuple(_file(sibling) for sibling in siblings),
        tags=listing.tags,
        downloads=listing.downloads,
        last_modified=listing.last_modified,
        gated=listing.gated,
        library_name=listing.library_name,
    )


def branches_of(body: bytes) -> dict[str, str]:
    """The answer of `/api/models/ORG/NAME/refs`: name -> commit; a branch comes before a tag of the same name."""
    answer = json.loads(body)
    refs = [*_list(_mapping(answer).get("tags")), *_list(answer.get("branches"))]
    return {_text(_mapping(ref).get("name")): _hex(ref.get("targetCommit"), _SHA1_DIGITS) for ref in refs}


def _listing(row: Any) -> RepoListing:
    get = _mapping(row).get
    siblings = get("siblings")
    sha = get("sha")
    return RepoListing(
        repo_id=_text(get("id")),
        commit=None if sha is None else _hex(sha, _SHA1_DIGITS),
        tags=tuple(map(_text, _list(get("tags")))),
        downloads=_count(get("downloads")),
        last_modified=_text_or_none(get("lastModified")),
        gated=get("gated") not in (None, False),  # "auto" and "manual" name how access is granted
        library_name=_text_or_none(get("library_name")),
        paths=None if siblings is None else tuple(_text(_mapping(file).get("rfilename")) for file in _list(siblings)),
    )


def _file(sibling: Any) -> HubFile:
    get = _mapping(sibling).get
    lfs = get("lfs")
    sha256 = _hex(_mapping(lfs).get("sha256"), _SHA256_DIGITS) if lfs is not None else None
    size = _count(get("size") if lfs is None else lfs.get("size"))
    if size is None:
        raise ValueError("a file without a size")
    blob_id = get("blobId")
    return HubFile(
        path=_text(get("rfilename")),
        size_bytes=size,
        sha256=sha256,
        blob_id=None if blob_id is None else _hex(blob_id, _SHA1_DIGITS),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is missing")  # noqa: TRY004 - of the text, as json's own
    return value


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError("a list is missing")  # noqa: TRY004 - as above
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a name is missing")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value in (None, "") else _text(value)


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a number is missing")
    return value


def _hex(value: Any, n_digits: int) -> str:
    """A checksum: it becomes part of file names, so nothing else may come through."""
    if not isinstance(value, str) or len(value) != n_digits or not set(value) <= set("0123456789abcdef"):
        raise ValueError("a checksum is missing")
    return value
