"""The private folder of an engine process."""

import os
import socket
import stat
from pathlib import Path

import pytest

from qrun.private_dir import MAX_SOCKET_PATH_BYTES, make_private_dir, remove_private_dir


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path leaves room for a socket's."""
    folder = tmp_path_factory.mktemp("s")
    if len(os.fsencode(folder)) > 70:
        pytest.skip(f"{folder} is too long a path to show it")
    return folder


def test_folder_is_the_user_s_alone(short: Path):
    """Nobody else may open the engine's socket."""
    folder = make_private_dir({"XDG_RUNTIME_DIR": str(short)})

    assert folder.parent == short
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_runtime_folder_comes_before_tmpdir_before_tmp(short: Path):
    """The user's own runtime folder where there is one, then the user's choice, then the system's."""
    both = make_private_dir({"XDG_RUNTIME_DIR": str(short), "TMPDIR": "/nowhere"})
    tmpdir = make_private_dir({"XDG_RUNTIME_DIR": "/nowhere", "TMPDIR": str(short)})
    neither = make_private_dir({"XDG_RUNTIME_DIR": "", "TMPDIR": "relative"})
    neither.rmdir()

    assert [both.parent, tmpdir.parent, neither.parent] == [short, short, Path("/tmp")]  # noqa: S108 - what the rule names


def test_folder_leaves_room_for_a_socket_however_long_the_wish(tmp_path: Path):
    """A unix socket's path has a hard limit: a longer folder is passed over, and a socket can be bound."""
    long = tmp_path / ("x" * 80)
    long.mkdir()
    folder = make_private_dir({"XDG_RUNTIME_DIR": str(long), "TMPDIR": str(long)})
    path = folder / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    remove_private_dir(folder)

    assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
    assert not folder.exists()


def test_longest_wish_that_is_taken_still_leaves_room(short: Path):
    """The room reserved is enough for the engine's socket at the very limit."""
    taken = []
    for length in range(1, MAX_SOCKET_PATH_BYTES - len(os.fsencode(short))):
        wish = short / ("x" * length)
        wish.mkdir()
        folder = make_private_dir({"XDG_RUNTIME_DIR": str(wish)})
        folder.rmdir()
        if folder.parent == wish:
            taken.append(folder)

    assert taken
    assert max(len(os.fsencode(folder / "engine.sock")) for folder in taken) <= MAX_SOCKET_PATH_BYTES


def test_removing_a_folder_that_is_gone_is_no_error(short: Path):
    """The keeper or the supervisor: whichever comes second finds nothing."""
    folder = make_private_dir({"XDG_RUNTIME_DIR": str(short)})
    remove_private_dir(folder)
    remove_private_dir(folder)

    assert not folder.exists()
