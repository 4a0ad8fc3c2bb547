"""The private folder of one engine process: mode 0700, for its socket, with a path short enough to bind to.

Two remove it when the engine ends: the keeper, and the supervisor in case the keeper was killed. Only if both are
killed at once does it stay, empty but for the socket.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["MAX_SOCKET_PATH_BYTES", "make_private_dir", "remove_private_dir"]

MAX_SOCKET_PATH_BYTES = 103  # sun_path of sockaddr_un is 104 bytes on macOS and 108 on Linux, with the final NUL
_RESERVED_BYTES = len("/qrun-XXXXXXXX") + len("/engine.sock") + 8  # tempfile's eight random letters, and room to name


def make_private_dir(environ: Mapping[str, str]) -> Path:
    """A new folder that only this user can enter. Raises OSError where no temporary folder can be written to."""
    return Path(tempfile.mkdtemp(prefix="qrun-", dir=_parent(environ)))


def remove_private_dir(folder: Path) -> None:
    """Remove the folder and what is in it; one that is gone already is no error."""
    shutil.rmtree(folder, ignore_errors=True)  # ours or the keeper's: whichever comes first


def _parent(environ: Mapping[str, str]) -> str:
    # XDG_RUNTIME_DIR is the user's own and in memory; after `su` it may name a folder that is not there or not ours.
    for folder in (environ.get("XDG_RUNTIME_DIR"), environ.get("TMPDIR")):
        if folder and _leaves_room(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return "/tmp"  # noqa: S108 - mkdtemp makes a folder of mode 0700 with a random name in it


def _leaves_room(folder: str) -> bool:
    return Path(folder).is_absolute() and len(os.fsencode(folder)) <= MAX_SOCKET_PATH_BYTES - _RESERVED_BYTES
