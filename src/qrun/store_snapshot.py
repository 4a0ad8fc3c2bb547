"""A commit's folder in the store: which of its files lie there whole, and how one is put there.

Links are relative and lead to the repo's own blobs. Nothing is written through a link that somebody planted in the
commit's folder: what the Hub names never ends up outside of it.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from qrun.errors import UnsafeFile
from qrun.model import ModelFile
from qrun.store_disk import sync_folder
from qrun.store_layout import RepoLayout, blob_key, is_key

__all__ = ["check_folders", "is_in_place", "make_folders", "put_link", "write_ref"]

# What backup programs look for (bford.info/cachedir); huggingface_hub marks its cache with it too.
_CACHEDIR_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n"


def is_in_place(layout: RepoLayout, commit: str, file: ModelFile) -> bool:
    """Whether the file lies in its commit's folder with its full size: a link to its blob, or a copy."""
    path = layout.file(commit, file.path)
    if any(folder.is_symlink() for folder in _folders_above(layout.snapshots, path)):
        return False
    try:
        if path.is_symlink() and not _leads_to_blob(layout, path, blob_key(file)):
            return False
        return path.is_file() and path.stat().st_size == file.size_bytes
    except OSError:
        return False  # a link in a circle, or a folder that may not be read


def check_folders(layout: RepoLayout, path: Path) -> None:
    """Raise UnsafeFile where a folder on the way from the repo's own to `path` is a link."""
    root = layout.refs if path.is_relative_to(layout.refs) else layout.snapshots
    for folder in _folders_above(root, path):
        if folder.is_symlink():
            raise UnsafeFile(str(folder), "it is a link, and what is stored there would end up elsewhere", "Remove it.")


def make_folders(layout: RepoLayout, commit: str) -> None:
    """Make the repo's folders, the snapshots' first: huggingface_hub warns of a repo without. Raises OSError."""
    layout.cache_dir.mkdir(parents=True, exist_ok=True)
    tag = layout.cache_dir / "CACHEDIR.TAG"
    if not tag.exists():
        tag.write_text(_CACHEDIR_TAG, encoding="ascii")
    layout.snapshot(commit).mkdir(parents=True, exist_ok=True)
    layout.blobs.mkdir(exist_ok=True)


def put_link(layout: RepoLayout, key: str, path: Path, *, may_move: bool) -> None:
    """Let `path` lead to the blob `key`, in place of what is there. Of one process at a time. Raises OSError.

    Where links cannot be made (Windows without its developer mode, FAT), the blob is moved there if it `may_move`,
    else copied: as huggingface_hub does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    blob = layout.blob(key)
    staged = layout.staged(key)
    staged.unlink(missing_ok=True)
    try:
        staged.symlink_to(os.path.relpath(blob, path.parent))
    except OSError:
        if may_move:
            staged = blob
        else:
            shutil.copyfile(blob, staged)
    staged.replace(path)
    sync_folder(path.parent)


def write_ref(
    layout: RepoLayout, name: str, commit: str, *, replace: bool, alone: AbstractContextManager[None]
) -> None:
    """Note what commit the branch `name` was seen at; one that is noted already is kept unless `replace`.

    An empty note is none: a tool that was killed while it wrote leaves it, and then no tool finds the branch offline.
    `alone` keeps other processes from the same commit's ref while there is something to write. Raises OSError.
    """
    path = layout.ref(name)
    if name == commit or (not replace and path.exists() and path.stat().st_size):
        return
    check_folders(layout, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = layout.staged(commit)
    with alone:
        with staged.open("w", encoding="ascii") as file:
            file.write(commit)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        sync_folder(path.parent)


def _folders_above(root: Path, path: Path) -> Iterator[Path]:
    """The folders between `root` and `path`, both excluded."""
    for name in reversed(path.relative_to(root).parents[:-1]):
        yield root / name


def _leads_to_blob(layout: RepoLayout, link: Path, key: str | None) -> bool:
    # One hop and not the end of all: a blob may itself be a link into the cache's shared store (_shared_blobs.py).
    blob = Path(os.path.abspath(link.parent / link.readlink()))  # noqa: PTH100  # resolve() would follow it
    is_ours = blob.parent == Path(os.path.abspath(layout.blobs))  # noqa: PTH100  # as above
    return is_ours and (blob.name == key if key else is_key(blob.name))
