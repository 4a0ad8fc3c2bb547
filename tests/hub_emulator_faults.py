"""Faults that the emulated Hub commits on demand, and which request each one meets."""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["BODY_KINDS", "Fault", "Faults", "Kind"]

Kind = Literal[
    "status", "reset", "cut", "slow", "corrupt", "move", "no_range", "delay", "redirect", "body", "endless", "hang"
]

# These change a body on its way. A redirect, a HEAD and a refusal have none, and do not use such a fault up.
BODY_KINDS = frozenset({"cut", "slow", "corrupt", "no_range"})


@dataclass
class Fault:
    """One fault, and how often it has still to happen (`times`; None: always). See HubEmulator.fault for the fields."""

    kind: Kind
    path: re.Pattern[str]
    method: str | None = None
    times: int | None = None
    after_bytes: int | None = None
    status: int | None = None
    retry_after: float | None = None
    delay_s: float | None = None
    bytes_per_s: float | None = None
    location: str | None = None
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, object] | None = None
    n_happened: int = 0

    def _meets(self, method: str, path: str) -> bool:
        spent = self.times is not None and self.n_happened >= self.times
        return not spent and self.method in (None, method) and self.path.search(path) is not None


class Faults:
    """The faults in force; asked by many threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Let `fault` happen from the next request on."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """No further faults."""
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str, *, of_body: bool) -> Fault | None:
        """The first fault for this request, counted as happened: one that changes a body, or one of the others."""
        with self._lock:
            for fault in self._faults:
                if (fault.kind in BODY_KINDS) == of_body and fault._meets(method, path):
                    fault.n_happened += 1
                    return fault
        return None
