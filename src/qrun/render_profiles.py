"""The machines that `--hardware NAME` simulates, for people and for programs (`qrun hardware --profiles`)."""

from collections.abc import Sequence

from qrun.hardware import Device, Hardware
from qrun.render import Column, print_json, print_table
from qrun.render_hardware import hardware_json
from qrun.units import gib

__all__ = ["show_profiles"]

_COLUMNS = (
    Column("Name"),
    Column("GPU", keeps=False),
    Column("Backend"),
    Column("Memory", right=True),
    Column("Usable", right=True),
    Column("RAM", right=True),
)
_NONE = "-"


def show_profiles(profiles: Sequence[Hardware], *, as_json: bool) -> None:
    """Print one row for each machine, or all of them as JSON in the shape of `qrun hardware --json`."""
    if as_json:
        print_json({"schema": 1, "profiles": [hardware_json(one) for one in profiles]})
        return
    print_table(_COLUMNS, [_row(one) for one in profiles])


def _row(machine: Hardware) -> list[str]:
    gpus = machine.gpus
    return [
        machine.name,
        _named(gpus) if gpus else _NONE,
        gpus[0].kind if gpus else "cpu",
        " + ".join(gib(gpu.memory_bytes) for gpu in gpus) or _NONE,
        gib(sum(gpu.budget_bytes for gpu in gpus) if gpus else machine.ram_budget_bytes),
        gib(machine.ram_bytes),
    ]


def _named(gpus: Sequence[Device]) -> str:
    names = [gpu.name for gpu in gpus]
    return names[0] if len(names) == 1 else " + ".join(names)
