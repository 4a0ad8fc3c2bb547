"""Why llama.cpp gave up, from its log: its own words, put into a sentence that follows `llamacpp failed:`.

The patterns were taken from failures that were made, on both engines (tests/test_llamacpp_failures.py).
"""

import re
from collections.abc import Callable, Mapping

from qrun.runner import FailureReason
from qrun.units import MIB, size

__all__ = ["explain"]

_Words = Callable[[re.Match[str]], str]
# In the order in which they tell most: with the device and the size, with the size, that it was memory at all.
_OUT_OF_MEMORY = (
    re.compile(r"failed to allocate (?P<device>(?!buffer)\w+) buffer of size (?P<bytes>\d+)"),
    re.compile(r"failed to allocate buffer of size (?P<bytes>\d+)"),
    re.compile(r"insufficient memory \(attempted to allocate\s+(?P<mib>[\d.]+) MB\)"),
    re.compile(r"out of memory|unable to allocate|std::bad_alloc|ErrorOutOf(Device|Host)Memory|Cannot allocate memory"),
    re.compile(r"failed to allocate (compute (pp )?buffers|buffer for kv cache)"),
)


def explain(log_text: str) -> FailureReason | None:
    """The reason; None where the log holds none of those that are known. The most telling pattern wins."""
    for pattern, words in _KNOWN:
        if found := pattern.search(log_text):
            return FailureReason(words(found))
    for pattern in _OUT_OF_MEMORY:
        if found := pattern.search(log_text):
            return _out_of_memory(found.groupdict())
    for pattern, words in _LESS_TELLING:
        if found := pattern.search(log_text):
            return FailureReason(words(found))
    return None


def _out_of_memory(found: Mapping[str, str | None]) -> FailureReason:
    device, n_bytes, mib = (found.get(name) for name in ("device", "bytes", "mib"))
    wanted = int(n_bytes) if n_bytes else int(float(mib) * MIB) if mib else None
    buffer = f" for a buffer of {size(wanted)}" if wanted else ""
    where = f" on {device}" if device and device != "CPU" else ""
    advice = "try a shorter --ctx, --kv-type q8_0 or a smaller quant"
    return FailureReason(f"out of memory{buffer}{where}; {advice}", lacks_memory=True, wanted_bytes=wanted)


def _missing_library(found: re.Match[str]) -> str:
    hint = " (apt install libgomp1, dnf install libgomp, apk add libgomp)" if "gomp" in found["library"] else ""
    return f"the system library {found['library']} is missing{hint}"


_KNOWN: tuple[tuple[re.Pattern[str], _Words], ...] = (
    (
        re.compile(r"unknown model architecture: '(?P<name>[^']*)'"),
        lambda found: f"this llama.cpp does not know the model architecture {found['name']!r}",
    ),
    (
        re.compile(r"tensor '[^']*' has invalid ggml type (?P<type>\d+)|invalid ggml type (?P<other>\d+)"),
        lambda found: f"the file holds a tensor type ({found['type'] or found['other']}) this llama.cpp does not know",
    ),
    (
        re.compile(r"failed to open GGUF file '(?P<path>[^']*)' \((?P<why>[^)]*)\)"),
        lambda found: f"{found['path']} cannot be opened: {found['why']}",
    ),
    (
        re.compile(r"error loading model: (?P<why>[^\n]*corrupted or incomplete[^\n]*)"),
        lambda found: f"the model file is damaged: {found['why']}",
    ),
    (
        re.compile(r"gguf_init_from_\w+: (?P<why>invalid magic[^\n]*|failed to read[^\n]*)"),
        lambda found: f"the model file is damaged: {found['why']}",
    ),
    (
        re.compile(r"(?P<library>[\w.+-]+\.so[\w.]*): cannot open shared object file"),
        _missing_library,
    ),
)
_LESS_TELLING: tuple[tuple[re.Pattern[str], _Words], ...] = (
    (
        re.compile(r"couldn't bind HTTP server socket, hostname: (?P<host>[^,\n]*), port: (?P<port>\d+)"),
        lambda found: f"it could not listen on {found['host']} (port {found['port']})",
    ),
    (
        re.compile(r"error: (?P<why>invalid argument: \S+|while handling argument [^\n]*)"),
        lambda found: found["why"],
    ),
    (
        re.compile(r"Fatal Python error: Illegal instruction"),
        lambda _: "this processor lacks an instruction that the engine uses; run qrun engines install llamacpp --build",
    ),
    (
        re.compile(r"error loading model: (?P<why>[^\n]+)"),
        lambda found: found["why"],
    ),
)
