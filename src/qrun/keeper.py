"""The process between qrun and an engine: it ends the engine when qrun is gone, however qrun went.

Run as a script, never imported by qrun: `python -I -S keeper.py PRIVATE_DIR COMMAND...`. Standard library only, one
thread, up in about 20 ms.

What it is given: standard input is a pipe whose other end only qrun holds, standard output a pipe that qrun reads,
standard error the engine's log. The engine gets none of the pipes: /dev/null for input, the log for output.
What it tells on standard output, a line each: `engine PID`, then `exit CODE` (negative: the signal that ended it) as
soon as the engine is dead, or `failed REASON` if it could not be started. End of file says that everything is gone:
the engine, what it started, and PRIVATE_DIR.

The rule: the engine lives no longer than the pipe. The kernel closes it when qrun stops, crashes or is killed with
SIGKILL, and then, as on SIGTERM, the engine's process group is ended. Three further cases:

- The engine dies by itself: what it started is killed, so that nothing keeps the memory.
- The keeper is killed with SIGKILL: on Linux the kernel kills the engine (PR_SET_PDEATHSIG). Elsewhere qrun does, which
  sees the keeper's pipe end and knows the engine's pid; only if both are killed at once does the engine stay.
- A grandchild left the engine's process group: on Linux it is handed to the keeper when its parent is dead
  (PR_SET_CHILD_SUBREAPER), and killed. Elsewhere only the group is ended.

Windows has no process groups, no fork and no signals in this sense; a job object would take the keeper's place there.
"""

# ruff: noqa: PTH106, PTH108, PTH118, PTH123, PTH208 - pathlib would be a third of the start-up time

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable

__all__ = ["main"]

# After a first SIGTERM and after a second, before SIGKILL. A llama-server at rest ends within 0.05 s of the first; with
# a request open it hangs there and ends at once on the second (DESIGN section 4): a longer first wait gains nothing.
_GRACES_S = (0.5, 1.5)
_END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NOT_STARTED = 127  # what a shell says of a command that it could not run

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36

_Prctl = Callable[[int, int], object]


def main(argv: list[str]) -> int:
    """Keep one engine; returns its exit status, or 128 and the signal that ended it."""
    private_dir, command = argv[1], argv[2:]
    pipe, status = _take_pipes()
    wake = _watch_signals()
    prctl = _load_prctl()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        engine = _Engine(_start(command, status, prctl))
        _tell(status, f"engine {engine.pid}")
        _wait_for_an_end(engine, pipe, wake)
        code = engine.end(wake)
        _tell(status, f"exit {code}")
        _kill_adopted()
    finally:
        _remove_tree(private_dir)
    return code if code >= 0 else 128 - code


class _Engine:
    """The engine's process group, led by the engine."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def is_dead(self) -> bool:
        """Whether the engine is dead; reaps it then, and grandchildren that were handed to us."""
        while self._code is None and self._reap(os.WNOHANG):
            pass
        return self._code is not None

    def end(self, wake: int) -> int:
        """End the group and return the engine's exit code; the last signal is for what outlived the engine."""
        for grace_s in _GRACES_S:
            if not self.is_dead():
                self._signal(signal.SIGTERM)
                self._wait(wake, grace_s)
        self._signal(signal.SIGKILL)
        while self._code is None:
            self._reap(0)
        return self._code

    def _reap(self, flags: int) -> bool:
        pid, status = os.waitpid(-1, flags)
        if pid == self.pid:
            self._code = os.waitstatus_to_exitcode(status)
        return pid != 0

    def _wait(self, wake: int, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not self.is_dead() and (left_s := deadline - time.monotonic()) > 0:
            select.select([wake], [], [], left_s)
            _drain(wake)

    def _signal(self, number: int) -> None:
        # No such group: all are gone. No permission: macOS says so of a group of which only zombies are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _take_pipes() -> tuple[int, int]:
    """Move the pipes out of the engine's sight (duplicates are not inherited) and leave it /dev/null and the log."""
    pipe, status = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return pipe, status


def _watch_signals() -> int:
    """A descriptor that turns readable, with the signal's number as a byte, when a child dies or we are to end."""
    wake, waker = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *_END_SIGNALS):
        signal.signal(number, lambda *_: None)  # SIG_IGN would not wake us
    return wake


def _drain(wake: int) -> bytes:
    try:
        return os.read(wake, 4096)
    except BlockingIOError:
        return b""


def _wait_for_an_end(engine: _Engine, pipe: int, wake: int) -> None:
    """Return when the engine is dead, qrun's end of the pipe is closed, or a signal tells us to end."""
    while not engine.is_dead():
        readable = select.select([pipe, wake], [], [])[0]
        if pipe in readable and not os.read(pipe, 4096):
            return
        if any(number in _END_SIGNALS for number in _drain(wake)):
            return


def _start(command: list[str], status: int, prctl: _Prctl) -> int:
    keeper = os.getpid()
    # Held back until the child has shed our handlers: a SIGTERM before that would be lost, and with it the first grace.
    signal.pthread_sigmask(signal.SIG_BLOCK, _END_SIGNALS)
    pid = os.fork()
    if pid == 0:
        _become(command, keeper, status, prctl)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
    with contextlib.suppress(PermissionError, ProcessLookupError):  # the engine came first, and has done it itself
        os.setpgid(pid, pid)
    return pid


def _become(command: list[str], keeper: int, status: int, prctl: _Prctl) -> None:
    """Turn the forked child into the engine. Does not return."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGPIPE, *_END_SIGNALS):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _END_SIGNALS)
    with contextlib.suppress(PermissionError):
        os.setpgid(0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:  # it died before it could be watched
        os._exit(_NOT_STARTED)
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell: the command is a list of words
    except OSError as error:
        _tell(status, f"failed {command[0]}: {error.strerror}")
    os._exit(_NOT_STARTED)


def _load_prctl() -> _Prctl:
    """Linux's prctl, loaded before the fork; elsewhere, and in a Python without ctypes, a call that does nothing."""
    if sys.platform == "linux":
        with contextlib.suppress(ImportError):
            import ctypes

            prctl = ctypes.CDLL(None).prctl
            return lambda option, value: prctl(option, value, 0, 0, 0)
    return lambda _option, _value: None


def _tell(status: int, line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # qrun is gone: nobody listens, and we end anyway
        os.write(status, f"{line}\n".encode())


def _kill_adopted() -> None:
    """Kill the engine's descendants that left its group; with their parents dead they are our children."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    """Our children by /proc's parent column (`/proc/PID/task/TID/children` is not compiled into every kernel)."""
    if sys.platform != "linux":
        return []
    return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _parent(pid) == os.getpid()]


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None  # gone since it was listed


def _remove_tree(folder: str) -> None:
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(parent, name))
        for name in folders:
            os.rmdir(os.path.join(parent, name))
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
