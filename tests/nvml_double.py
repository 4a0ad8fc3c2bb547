"""A double of NVML: the functions of `pynvml` over cards that a test describes, raising pynvml's own errors.

A double because no GPU is here. Names, sizes and identities are those of published nvidia-smi and NVML outputs; which
error means what is taken from pynvml, which is real.
"""
# ruff: noqa: D102, N802 - the functions bear NVML's names, and NVML's documentation tells what they do

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pynvml

MIB = 2**20


@dataclass
class Card:
    """One card, or one MIG instance of it. `failing`: what NVML answers to any question about it."""

    name: str
    uuid: str
    pci_bus_id: str = "00000000:01:00.0"
    total_bytes: int | None = 24564 * MIB  # None: this GPU has no memory of its own
    free_bytes: int = 24000 * MIB
    capability: tuple[int, int] = (8, 9)
    mig: bool | None = None  # None: the card does not know MIG
    parts: Sequence["Card | None"] = field(default_factory=tuple)
    failing: int | None = None


class NvmlDouble(ModuleType):
    """Stands in for the module `pynvml`."""

    NVML_DEVICE_MIG_ENABLE = pynvml.NVML_DEVICE_MIG_ENABLE
    NVMLError = pynvml.NVMLError
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_LibRmVersionMismatch = pynvml.NVMLError_LibRmVersionMismatch

    def __init__(self, cards: Sequence[Card] = (), *, init_error: int | None = None, count_error: int | None = None):
        super().__init__("pynvml")
        self.cards = cards
        self.init_error = init_error
        self.count_error = count_error
        self.open = 0

    def nvmlInit(self):
        self._raise(self.init_error)
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlSystemGetDriverVersion(self):
        return "570.86.15"

    def nvmlDeviceGetCount(self):
        self._raise(self.count_error)
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):
        self._raise(self.cards[index].failing)
        return self.cards[index]

    def nvmlDeviceGetName(self, card):
        return card.name

    def nvmlDeviceGetUUID(self, card):
        return card.uuid

    def nvmlDeviceGetPciInfo(self, card):
        return SimpleNamespace(busId=card.pci_bus_id)

    def nvmlDeviceGetMemoryInfo(self, card):
        if card.total_bytes is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(total=card.total_bytes, free=card.free_bytes)

    def nvmlDeviceGetCudaComputeCapability(self, card):
        return card.capability

    def nvmlDeviceGetMigMode(self, card):
        if card.mig is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(card.mig), int(card.mig)]

    def nvmlDeviceGetMaxMigDeviceCount(self, card):
        return len(card.parts)

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card, index):
        if card.parts[index] is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return card.parts[index]

    @staticmethod
    def _raise(code):
        if code is not None:
            raise pynvml.NVMLError(code)
