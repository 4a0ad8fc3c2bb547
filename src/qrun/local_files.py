"""The files of a folder as they lie on the disk: symbolic links followed, whatever they lead to.

The folder is the user's own, so links to files and folders count as what they point at. Each real folder is entered
once, so that links that lead back in a circle end. Hidden entries (`.cache`, `.git`) are passed over.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qrun.model import ModelFile

__all__ = ["LocalFile", "files_under", "read_text_head", "subfolders"]

_BLOB = re.compile(r"[0-9a-f]{64}")
_MOST_HOPS = 40  # of links; Linux follows no more


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file at `disk`, called `path` in its candidate. A link that leads nowhere has `size_bytes` None."""

    path: str
    disk: Path
    size_bytes: int | None

    def as_model_file(self) -> ModelFile:
        """The file as a candidate lists it; its sha256 where it is a link to a Hub cache's blob, which bears it."""
        return ModelFile(self.path, self.size_bytes or 0, _blob_name(self.disk))


def files_under(root: Path, *, most_depth: int = 8) -> tuple[LocalFile, ...]:
    """The files in `root` and in folders up to `most_depth` levels below, by path (relative, with `/`).

    Raises PermissionError for a folder it cannot list.
    """
    return tuple(sorted(_walk(root, "", set(), most_depth), key=lambda file: file.path))


def subfolders(root: Path) -> tuple[Path, ...]:
    """The folders in `root`, and links to folders, by name."""
    with os.scandir(root) as entries:
        return tuple(sorted(Path(entry.path) for entry in entries if not _is_hidden(entry) and _is_folder(entry)))


def read_text_head(path: Path, most_bytes: int) -> str:
    """The start of a text file, or "" where there is none; bytes that are no UTF-8 are replaced."""
    try:
        with path.open("rb") as opened:
            return opened.read(most_bytes).decode("utf-8", errors="replace")
    except (FileNotFoundError, IsADirectoryError):
        return ""


def _blob_name(link: Path) -> str | None:
    """The sha256 that a link's way leads over: `blobs/<sha256>` may itself be a link, into a store for all repos."""
    for _ in range(_MOST_HOPS):
        if not link.is_symlink():
            return None
        link = Path(os.path.normpath(link.parent.resolve() / link.readlink()))
        if link.parent.name == "blobs" and _BLOB.fullmatch(link.name):
            return link.name
    return None


def _walk(folder: Path, prefix: str, entered: set[tuple[int, int]], depth: int) -> Iterator[LocalFile]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in entered:
        return
    entered.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not _is_hidden(entry)), key=lambda entry: entry.name)
    for entry in listed:
        if not _is_folder(entry):
            yield LocalFile(f"{prefix}{entry.name}", Path(entry.path), _size(entry))
        elif depth:
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", entered, depth - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        if _leads_nowhere(entry):
            return False
        raise


def _size(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_size
    except OSError:
        if _leads_nowhere(entry):
            return None
        raise


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to nothing or, in a circle, to itself."""
    if not entry.is_symlink():
        return False
    try:
        os.stat(entry.path)  # noqa: PTH116  # asked for its errno alone
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return False


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith(".")
