"""What an installed engine can load, asked of the engine itself, once for each state of its files.

The runner says what to run (`Runner.inventory`); the answer is kept in the cache folder under the library's path, size
and time of change, so that a decision costs one small file, and another build of the engine is asked anew.
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qrun.config import Config
from qrun.ggml_types import type_name
from qrun.runner import Engine, Inventory, Runner
from qrun.whole_file import write_json

__all__ = ["Loads", "loads_of"]

_ASK_LIMIT_S = 20.0
_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Loads:
    """Names of architectures and of a GGUF file's tensor types; None: the engine did not tell."""

    architectures: frozenset[str] | None = None
    tensor_types: frozenset[str] | None = None


def loads_of(runner: Runner, engine: Engine, config: Config) -> Loads:
    """What `engine` loads. Raises nothing: an engine that cannot be asked tells nothing."""
    inventory = runner.inventory(engine)
    if inventory is None:
        return Loads()
    kept = _kept_at(config.cache_dir / "engine-loads", inventory)
    if kept is None:
        return Loads()
    said = _read(kept)
    if said is None:
        said = _ask(inventory)
        if said is not None:
            _keep(kept, said)
    return _loads(said or {})


def _kept_at(folder: Path, inventory: Inventory) -> Path | None:
    """Where the answer of this state of the library is kept; None where there is no library."""
    try:
        state = inventory.library_path.stat()
    except OSError:
        return None
    key = json.dumps([_SCHEMA, str(inventory.library_path), state.st_size, state.st_mtime_ns, inventory.argv])
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or half of it: it is asked again
        return None
    return said if isinstance(said, dict) else None


def _ask(inventory: Inventory) -> Mapping[str, Any] | None:
    """What it printed until its end, whatever that was; None where it took too long or did not run."""
    try:
        done = subprocess.run(
            inventory.argv,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_ASK_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        with suppress(ValueError):  # broken off in the middle
            said |= json.loads(line)
    return said


def _keep(path: Path, said: Mapping[str, Any]) -> None:
    """All at once. Where the folder cannot be written the engine is asked again next time."""
    with suppress(OSError):
        write_json(path, said)


def _loads(said: Mapping[str, Any]) -> Loads:
    names, ids = said.get("architectures"), said.get("tensor_types")
    return Loads(
        frozenset(map(str, names)) if isinstance(names, list) and names else None,
        frozenset(type_name(int(one)) for one in ids) if isinstance(ids, list) and ids else None,
    )
