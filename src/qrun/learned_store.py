"""What was learned on each machine, kept under the state folder: one small file a machine, replaced all at once.

A file that is damaged, or of another version, is as if it were not there: nothing is lost that the next load does not
teach again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from qrun.hardware import Hardware
from qrun.learned import NOTHING_LEARNED, Learned, Observation
from qrun.pins import machine_of
from qrun.whole_file import write_json

__all__ = ["LearnedStore"]

_SCHEMA = 1
_MOST = 200  # observations of one machine; a few hundred bytes each
_LOCK_WITHIN_S = 5.0


class LearnedStore:
    """The observations in one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / "learned"

    def get(self, hardware: Hardware) -> Learned:
        """What was learned on that machine; nothing on a simulated one."""
        return NOTHING_LEARNED if hardware.simulated else _read(self._path(hardware))

    def add(self, hardware: Hardware, seen: Iterable[Observation]) -> None:
        """Keep `seen`, each in place of an older one of the same files, placement and outcome.

        Raises OSError where the folder cannot be written, TimeoutError where another process holds it for long.
        """
        from filelock import FileLock

        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(hardware)
        with FileLock(path.with_suffix(".lock"), timeout=_LOCK_WITHIN_S):
            kept = {_slot(one): one for one in _read(path).observations}
            for one in seen:
                before = kept.pop(_slot(one), None)  # put at the end: the newest is last
                kept[_slot(one)] = _with_rates_of(before, one)
            _write(path, list(kept.values())[-_MOST:])

    def _path(self, hardware: Hardware) -> Path:
        key = json.dumps(machine_of(hardware), sort_keys=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _slot(one: Observation) -> tuple[object, ...]:
    return one.key, one.mode, one.n_gpu_layers, one.n_cpu_moe, one.taken_bytes is None


def _with_rates_of(before: Observation | None, one: Observation) -> Observation:
    """`one`; the rates of before stay where this time nothing was measured."""
    if before is None or one.decode_tps is not None:
        return one
    rates = {name: getattr(before, name) for name in ("decode_tps", "prefill_tps", "model_tps")}
    return Observation(**(asdict(one) | rates))


def _read(path: Path) -> Learned:
    try:
        said: Any = json.loads(path.read_text(encoding="utf-8"))
        if said["schema"] != _SCHEMA:
            return NOTHING_LEARNED
        names = {field.name for field in fields(Observation)}
        return Learned(tuple(Observation(**{k: v for k, v in one.items() if k in names}) for one in said["seen"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return NOTHING_LEARNED


def _write(path: Path, observations: list[Observation]) -> None:
    write_json(path, {"schema": _SCHEMA, "seen": [asdict(one) for one in observations]})
