"""What a disk can refuse, told as qrun's errors: no room, or no right to write."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qrun.errors import Failure
from qrun.hub_errors import DiskFull
from qrun.units import MIB

__all__ = ["check_room", "disk_refusals", "sync_folder"]

_ALLOWANCE_BYTES = 16 * MIB  # for journals, folders and what others write meanwhile
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise DiskFull where the disk of `folder` has no room for `needed_bytes` and a little more."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes and free_bytes < needed_bytes + _ALLOWANCE_BYTES:
        raise DiskFull(str(folder), needed_bytes + _ALLOWANCE_BYTES, free_bytes)


@contextmanager
def disk_refusals(folder: Path) -> Iterator[None]:
    """Turn what the system says of a full, closed or unfit disk under `folder` into DiskFull and Failure."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(str(folder)) from error
        where = error.filename2 or error.filename or folder
        raise Failure(
            f"the store cannot use {where}: {error.strerror or error}.",
            "See who owns it and what is there, or move the cache with HF_HUB_CACHE.",
        ) from error


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, so that a rename in it outlives a power cut."""
    if os.name == "nt":
        return  # Windows opens no folder; NTFS journals its entries itself
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
