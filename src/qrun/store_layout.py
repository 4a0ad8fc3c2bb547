"""Where a repo's files lie in the Hub's cache, and which names from a Hub may be used on this disk.

Pure: paths and checks alone, no I/O. The layout is huggingface_hub's (`file_download.py`), so that it and qrun read
each other's files:

    CACHE/models--ORG--NAME/blobs/KEY              the bytes; KEY is the sha256 of an LFS file, the git id of any other
    CACHE/models--ORG--NAME/snapshots/COMMIT/PATH  a relative link to its blob (a copy where links cannot be made)
    CACHE/models--ORG--NAME/refs/BRANCH            the commit that the branch was last seen at
    CACHE/.locks/models--ORG--NAME/KEY.lock        held while the blob is fetched

What qrun has not finished stands beside the blobs under names that end in `.incomplete`, as huggingface_hub's own
partial files do: its scan lists them as such and `hf cache prune` removes them. None is a name that huggingface_hub
itself writes or resumes (`KEY.incomplete`, `KEY.RANDOM.incomplete`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from qrun.errors import UnsafeFile
from qrun.hub_info import HubFile
from qrun.model import ModelFile

__all__ = [
    "JOURNAL_SUFFIX",
    "OWN_SUFFIXES",
    "PARTIAL_SUFFIX",
    "SET_ASIDE_SUFFIX",
    "RepoLayout",
    "blob_key",
    "check_path",
    "check_paths",
    "is_key",
]

PARTIAL_SUFFIX = ".qrun.incomplete"  # the bytes so far, at their places in a file of the final size
JOURNAL_SUFFIX = ".qrun-journal.incomplete"  # which of them are on the disk
SET_ASIDE_SUFFIX = ".qrun-wrong.incomplete"  # bytes whose checksum is not the one that the Hub named
_STAGED_SUFFIX = ".qrun-new.incomplete"  # a link or ref that is renamed into place
OWN_SUFFIXES = (PARTIAL_SUFFIX, JOURNAL_SUFFIX, SET_ASIDE_SUFFIX, _STAGED_SUFFIX)

_KEY = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO_ID = re.compile(r"(?:[A-Za-z0-9_][\w.-]*/)?[A-Za-z0-9_][\w.-]*", re.ASCII)
_MOST_REPO_ID = 96  # huggingface_hub utils/_validators.py
_MOST_NAME_BYTES = 255  # NAME_MAX of Linux and macOS; NTFS counts 255 UTF-16 units
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\u0080-\u009f\u2028\u2029\ud800-\udfff]")
# Devices on Windows in any folder, with any extension (learn.microsoft.com, "Naming Files, Paths, and Namespaces").
_DEVICES = r"con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]"
_DEVICE = re.compile(rf"(?:{_DEVICES})\s*(?:\..*)?", re.IGNORECASE)
_REMEDY = "Choose another repo of the model."


@dataclass(frozen=True, slots=True)
class RepoLayout:
    """The places of one repo in the cache. Raises UnsafeFile for a repo_id that is none."""

    cache_dir: Path
    repo_id: str

    def __post_init__(self) -> None:
        bad = "--" in self.repo_id or ".." in self.repo_id or len(self.repo_id) > _MOST_REPO_ID
        if bad or not _REPO_ID.fullmatch(self.repo_id):
            raise UnsafeFile(repr(self.repo_id), "it is no repo's name", "A repo is named ORG/NAME.")

    @property
    def folder(self) -> Path:
        """The repo's folder."""
        return self.cache_dir / self._name

    @property
    def blobs(self) -> Path:
        """The folder of the bytes."""
        return self.folder / "blobs"

    @property
    def snapshots(self) -> Path:
        """The folder of the commits."""
        return self.folder / "snapshots"

    @property
    def refs(self) -> Path:
        """The folder of the branches."""
        return self.folder / "refs"

    def blob(self, key: str) -> Path:
        """The whole bytes of one file."""
        return self.blobs / _checked_key(key)

    def partial(self, key: str) -> Path:
        """The bytes so far of one that is being fetched."""
        return self.blobs / f"{_checked_key(key)}{PARTIAL_SUFFIX}"

    def journal(self, key: str) -> Path:
        """What tells which bytes of the partial file are on the disk."""
        return self.blobs / f"{_checked_key(key)}{JOURNAL_SUFFIX}"

    def set_aside(self, key: str) -> Path:
        """Where wrong bytes are kept for a look, until right ones came or somebody prunes."""
        return self.blobs / f"{_checked_key(key)}{SET_ASIDE_SUFFIX}"

    def staged(self, name: str) -> Path:
        """Where a link or a ref is made before it is renamed into place; `name` is a key or a commit."""
        return self.blobs / f"{_checked_key(name)}{_STAGED_SUFFIX}"

    def lock(self, key: str) -> Path:
        """The lock that huggingface_hub holds too while it fetches that blob."""
        return self.cache_dir / ".locks" / self._name / f"{_checked_key(key)}.lock"

    def snapshot(self, commit: str) -> Path:
        """The folder of one commit."""
        if not _COMMIT.fullmatch(commit):
            raise UnsafeFile(self.repo_id, f"{commit!r} is no commit", "A commit is 40 hexadecimal digits.")
        return self.snapshots / commit

    def file(self, commit: str, path: str) -> Path:
        """One file of a commit. Raises UnsafeFile for a path that could leave the folder."""
        check_path(path, f"{self.repo_id}/")
        return self.snapshot(commit).joinpath(*path.split("/"))

    def ref(self, name: str) -> Path:
        """The file that holds a branch's commit."""
        check_path(name, f"{self.repo_id}@")
        return self.refs.joinpath(*name.split("/"))

    @property
    def _name(self) -> str:
        return "--".join(("models", *self.repo_id.split("/")))


def blob_key(file: ModelFile) -> str | None:
    """The name of a file's blob, which is its checksum: sha256, else git id. None: the Hub's listing is needed."""
    if file.sha256:
        return file.sha256
    return file.blob_id if isinstance(file, HubFile) else None


def is_key(name: str) -> bool:
    """Whether `name` can be a blob's: a sha256 or a git id."""
    return _KEY.fullmatch(name) is not None


def check_path(path: str, where: str = "") -> None:
    """Raise UnsafeFile for a path from a Hub that is not plainly relative on every system, or cannot be written.

    Refused: empty, `.` and `..` parts, absolute paths, drive letters and streams (`:`), backslashes, control
    characters, Windows' device names, names that end in a dot or a space, and names over 255 bytes. `where` stands
    before the path in the message.
    """
    for part in path.split("/"):
        if why := _why_unsafe(part):
            raise UnsafeFile(_printable(f"{where}{path}"), why, _REMEDY)


def check_paths(paths: Iterable[str], where: str = "") -> None:
    """Check each path, and that no two are one file, or file and folder, on systems that ignore case."""
    seen: dict[str, str] = {}
    for path in paths:
        check_path(path, where)
        if twin := seen.get(_folded(path)):
            raise UnsafeFile(f"{where}{path}", f"on some systems it is the same file as {twin}", _REMEDY)
        seen[_folded(path)] = path
    for path in seen.values():
        if folder := next(
            (seen[str(above)] for above in PurePosixPath(_folded(path)).parents if str(above) in seen), None
        ):
            raise UnsafeFile(f"{where}{path}", f"{folder} is a file and a folder", _REMEDY)


def _checked_key(key: str) -> str:
    if not is_key(key):
        raise UnsafeFile(repr(key), "it is neither a sha256 nor a git id", _REMEDY)
    return key


def _why_unsafe(part: str) -> str | None:
    if part in ("", ".", ".."):
        return "its name could leave the store"
    if "\\" in part or ":" in part:
        return "its name has a backslash or a colon"
    if _UNPRINTABLE.search(part):
        return "its name has a character that cannot be printed"
    if part[-1] in ". " or _DEVICE.fullmatch(part):
        return "its name is reserved on Windows"
    return "its name is too long" if len(part.encode()) > _MOST_NAME_BYTES else None


def _folded(path: str) -> str:
    """One text for all paths that are one file on macOS or Windows."""
    return normalize("NFC", path).casefold()


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)
