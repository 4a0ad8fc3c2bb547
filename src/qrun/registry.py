"""The runners that are installed, by the entry-point group `qrun.runners`.

qrun never imports a runner by name: whoever installs a distribution with that entry point adds one. A runner that
cannot be imported is reported by its name and takes no other down.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from qrun.errors import UsageError
from qrun.runner import Runner

__all__ = ["GROUP", "BrokenRunner", "Registry", "registry", "runner_named", "runners"]

GROUP = "qrun.runners"


@dataclass(frozen=True, slots=True)
class BrokenRunner:
    """A runner whose package does not import: its name, and the error as one line."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Registry:
    """The runners by name, and those that could not be had."""

    runners: Mapping[str, Runner]
    broken: tuple[BrokenRunner, ...]


@cache
def registry() -> Registry:
    """All registered runners, in alphabetical order; looked up once a process."""
    from importlib.metadata import entry_points

    working: dict[str, Runner] = {}
    broken: list[BrokenRunner] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            working[entry.name] = entry.load()()
        except Exception as error:  # noqa: BLE001 - a stranger's package may raise anything; it is reported, not hidden
            broken.append(BrokenRunner(entry.name, f"{type(error).__name__}: {error}"))
    return Registry(working, tuple(broken))


def runners() -> Mapping[str, Runner]:
    """The runners that work, by name."""
    return registry().runners


def runner_named(name: str) -> Runner:
    """The runner of that name. Raises UsageError, which names those there are."""
    known = registry()
    if name in known.runners:
        return known.runners[name]
    if broken := next((one for one in known.broken if one.name == name), None):
        raise UsageError(f"the runner {name} does not load: {broken.why}. Install its distribution again.")
    raise UsageError(f"there is no engine {name!r}. There are: {', '.join(known.runners) or 'none'}.")
