"""Decisions kept on this disk, so that the same request is answered without asking the Hub again (DESIGN 3.10).

One file a decision. Its name is a hash of what was asked (MODEL's text and the options that choose) and of the machine
without its free memory: what is free changes by the hour and must not decide anew.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qrun.hardware import Hardware
from qrun.pin_json import KeptDecision, PinDamaged, decision_of, json_of
from qrun.request import Request
from qrun.whole_file import write_json

__all__ = ["PinStore", "machine_of", "options_of", "request_of"]

_RAM_STEP_BYTES = 2**28  # the kernel's own share of RAM differs a little from boot to boot


class PinStore:
    """The decisions kept in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, request: Request, hardware: Hardware) -> KeptDecision | None:
        """The decision kept for that request on that machine. A damaged file is as if it were not there."""
        return _read(self._path(request, hardware))

    def put(self, request: Request, hardware: Hardware, decision: KeptDecision) -> None:
        """Keep a decision in place of the one before. Raises OSError where the folder cannot be written."""
        write_json(self._path(request, hardware), json_of(decision))

    def all(self) -> Iterator[KeptDecision]:
        """Every decision that is kept, in no particular order."""
        for path in sorted(self._folder.glob("*.json")):
            if (decision := _read(path)) is not None:
                yield decision

    def _path(self, request: Request, hardware: Hardware) -> Path:
        key = json.dumps([options_of(request), machine_of(hardware)], sort_keys=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def options_of(request: Request) -> dict[str, Any]:
    """What of a request decides: all of it, as JSON has it."""
    options: dict[str, Any] = json.loads(json.dumps(asdict(request)))
    return options


def request_of(options: dict[str, Any]) -> Request:
    """The request that `options_of` made `options` of."""
    lists = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    return Request(**(options | lists))


def machine_of(hardware: Hardware) -> dict[str, Any]:
    """Who a machine is: what of it stays the same from one boot to the next."""
    return {
        "name": hardware.name if hardware.simulated else None,  # a file's name for it; a host may be renamed
        "os": hardware.os,
        "cpu": [hardware.cpu.name, hardware.cpu.arch],
        "ram": round(hardware.ram_bytes / _RAM_STEP_BYTES),
        "ram_limit": hardware.ram_limit_bytes and round(hardware.ram_limit_bytes / _RAM_STEP_BYTES),
        "gpus": [[gpu.name, gpu.kind, gpu.memory_bytes, gpu.uuid] for gpu in hardware.gpus],
    }


def _read(path: Path) -> KeptDecision | None:
    try:
        return decision_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, PinDamaged, ValueError):  # not there, or not ours to read: it is decided anew
        return None
