"""Reads a hardware file: a machine described in TOML, so that a decision can be simulated on it.

Strict: a key that is missing, unknown or of the wrong type is refused by name, with what is allowed. A typo must not
become a decision for another machine. Keys and units: DESIGN section 2.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, get_args

from qrun.errors import UsageError
from qrun.hardware import Cpu, Device, Hardware
from qrun.profiles import nearest_profiles, profile_named

__all__ = ["load_hardware", "read_hardware"]

_Word = TypeVar("_Word", bound=str)
_Backend = Literal["cuda", "rocm", "vulkan", "metal"]
_BACKENDS: tuple[_Backend, ...] = get_args(_Backend)
_OSES = ("linux", "macos", "windows")
_ARCHES = ("x86_64", "aarch64", "arm64")
_CAPABILITY = re.compile(r"\d{1,2}\.\d")

_MACHINE_NEEDS = ("name", "os", "arch", "cpu_cores", "ram_bytes")
_MACHINE_TAKES = (*_MACHINE_NEEDS, "ram_free_bytes", "ram_bandwidth_bytes_per_s", "gpu")
_GPU_NEEDS = ("name", "backend", "memory_bytes")
_GPU_TAKES = (
    *_GPU_NEEDS,
    "free_bytes",
    "bandwidth_bytes_per_s",
    "compute_capability",
    "unified",
    "working_set_bytes",
)


def load_hardware(path: Path) -> Hardware:
    """The machine that the file at `path` describes, or the built-in one of that name.

    Raises UsageError, naming the file; for a name that is neither, with the nearest names.
    """
    if path.suffix != ".toml" and len(path.parts) == 1 and not path.exists():
        return _profile(path.name)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the hardware file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the hardware file {path} cannot be read: it is not UTF-8 text.") from error
    return read_hardware(text, origin=str(path))


def _profile(name: str) -> Hardware:
    if machine := profile_named(name):
        return machine
    nearest = nearest_profiles(name)
    like = f"The nearest: {', '.join(nearest)}. " if nearest else ""
    raise UsageError(f"there is no hardware file and no built-in machine {name!r}. {like}All: qrun hardware --profiles")


def read_hardware(text: str, *, origin: str = "hardware file") -> Hardware:
    """The machine that `text` describes, with `simulated` set. Raises UsageError, naming `origin` and the key."""
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin}: not valid TOML: {error}.") from error
    machine = _Table(entries, f"{origin}: ", needs=_MACHINE_NEEDS, takes=_MACHINE_TAKES)
    ram_bytes = machine.count("ram_bytes")
    return Hardware(
        name=machine.text("name"),
        os=machine.choice("os", _OSES),
        cpu=_cpu(machine),
        ram_bytes=ram_bytes,
        ram_free_bytes=machine.part_of("ram_bytes", ram_bytes, key="ram_free_bytes"),
        ram_bandwidth_bytes_per_s=machine.rate("ram_bandwidth_bytes_per_s"),
        gpus=tuple(_gpu(table, f"{origin}: gpu[{index}].") for index, table in enumerate(machine.tables("gpu"))),
        simulated=True,
    )


def _cpu(machine: "_Table") -> Cpu:
    # The file's cores are those an engine would be given: performance cores, hyper-threads not counted.
    cores = machine.count("cpu_cores")
    return Cpu(name=None, arch=machine.choice("arch", _ARCHES), physical_cores=cores, performance_cores=cores)


def _gpu(entries: Mapping[str, object], prefix: str) -> Device:
    gpu = _Table(entries, prefix, needs=_GPU_NEEDS, takes=_GPU_TAKES)
    kind = gpu.choice("backend", _BACKENDS)
    memory_bytes = gpu.count("memory_bytes")
    if kind == "metal" and gpu.flag("unified") is False:
        raise gpu.refusal("unified", "Metal's memory is always unified: leave the key out, or say true")
    if kind != "cuda" and "compute_capability" in entries:
        raise gpu.refusal("compute_capability", f"only a GPU of backend cuda has one, this is {kind}")
    return Device(
        name=gpu.text("name"),
        kind=kind,
        memory_bytes=memory_bytes,
        free_bytes=gpu.part_of("memory_bytes", memory_bytes, key="free_bytes"),
        bandwidth_bytes_per_s=gpu.rate("bandwidth_bytes_per_s"),
        compute_capability=gpu.capability("compute_capability"),
        unified=kind == "metal" or gpu.flag("unified") is True,
        working_set_bytes=gpu.part_of("memory_bytes", memory_bytes, key="working_set_bytes"),
    )


class _Table:
    """One table of the file, read key by key. `prefix` is where it stands in the file, for the messages."""

    def __init__(
        self, entries: Mapping[str, object], prefix: str, *, needs: Sequence[str], takes: Sequence[str]
    ) -> None:
        self._entries = entries
        self._prefix = prefix
        for key in entries:
            if key not in takes:
                raise self.refusal(key, f"unknown key; allowed are {', '.join(takes)}")
        for key in needs:
            if key not in entries:
                raise self.refusal(key, f"is missing; needed are {', '.join(needs)}")

    def refusal(self, key: str, why: str) -> UsageError:
        return UsageError(f"{self._prefix}{key}: {why}.")

    def text(self, key: str) -> str:
        value = self._entries[key]
        if not isinstance(value, str) or not value.strip():
            raise self.refusal(key, f"must be a text that is not empty, not {value!r}")
        return value

    def choice(self, key: str, allowed: Sequence[_Word]) -> _Word:
        for word in allowed:
            if word == self._entries[key]:
                return word
        raise self.refusal(key, f"must be one of {', '.join(allowed)}, not {self._entries[key]!r}")

    def count(self, key: str) -> int:
        value = self._entries[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.refusal(key, f"must be a whole number above 0, without a unit or a decimal point, not {value!r}")
        return value

    def part_of(self, whole_key: str, whole: int, *, key: str) -> int | None:
        if key not in self._entries:
            return None
        value = self._entries[key]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= whole:
            raise self.refusal(key, f"must be a whole number from 0 to {whole_key} ({whole}), not {value!r}")
        return value

    def rate(self, key: str) -> float | None:
        if key not in self._entries:
            return None
        value = self._entries[key]
        # TOML knows inf and nan; neither is a bandwidth.
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self.refusal(key, f"must be a number of bytes per second above 0, like 272e9, not {value!r}")
        return float(value)

    def flag(self, key: str) -> bool | None:
        value = self._entries.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.refusal(key, f"must be true or false, not {value!r}")
        return value

    def capability(self, key: str) -> str | None:
        if key not in self._entries:
            return None
        value = self._entries[key]
        if not isinstance(value, str) or not _CAPABILITY.fullmatch(value):
            raise self.refusal(key, f'must be a text like "8.9", not {value!r}')
        return value

    def tables(self, key: str) -> list[dict[str, object]]:
        value = self._entries.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self.refusal(key, "must be tables, each begun by [[gpu]]")
        return value
