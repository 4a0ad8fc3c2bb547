"""Fetches a repo again and again, each time killed one step later, and each time fetched to its end after that.

    python store_crasher.py ENDPOINT FOLDER REPO_ID

A step is whatever changes the names in the cache: a file opened for writing, a folder made, a rename, a link, a
removal. Every fetch is a process of its own. Prints how many steps there were; stops at the first that is not mended.
"""

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from huggingface_hub import scan_cache_dir

from qrun.hub_client import HubClient
from qrun.store import Store
from store_puller import settings_of, wanted_of

_STEPS = frozenset({"open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove"})


def _in_child(work: Callable[[], None]) -> int:
    """The exit code of `work` in a process of its own, negative for the signal that ended it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
    except BaseException:  # noqa: BLE001  # reported, whatever it is: this process ends here
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _die_before(step: int, cache: Path) -> None:
    steps = count(1)

    def look(event: str, args: tuple[object, ...]) -> None:
        if event not in _STEPS or not any(str(cache) in str(arg) for arg in args):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def _fetch(endpoint: str, cache: Path, repo_id: str) -> None:
    settings = settings_of(endpoint, cache)
    client = HubClient(settings)
    wanted = wanted_of(client, repo_id)
    store = Store(settings, client)
    store.fetch(wanted)
    assert store.path_of(wanted) is not None


def _check(endpoint: str, cache: Path, repo_id: str) -> None:
    _fetch(endpoint, cache, repo_id)
    scanned = scan_cache_dir(cache)
    assert scanned.warnings == [], scanned.warnings
    assert scanned.incomplete_files == frozenset(), scanned.incomplete_files
    (repo,) = scanned.repos
    assert [set(revision.refs) for revision in repo.revisions] == [{"main"}]


def _main(endpoint: str, folder: str, repo_id: str) -> int:
    for step in count(1):
        cache = Path(folder) / str(step) / "hub"

        def killed(step: int = step, cache: Path = cache) -> None:
            _die_before(step, cache)
            _fetch(endpoint, cache, repo_id)

        ended = _in_child(killed)
        if ended not in (0, -signal.SIGKILL):
            return 1
        if _in_child(lambda cache=cache: _check(endpoint, cache, repo_id)):
            sys.stderr.write(f"not mended after a kill before step {step}\n")
            return 1
        if ended == 0:
            print(step - 1)
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
