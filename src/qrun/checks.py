"""What `qrun doctor` makes of the facts: each check is a pure function from what was found to a verdict.

`fail` means that something a user will ask for cannot work, `warn` that it works less well or only in part. Whatever is
not `ok` names its remedy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qrun.hardware import Cpu, Hardware
from qrun.probe_hub import HubAnswer
from qrun.resolution import EngineState
from qrun.runner import Engine
from qrun.units import GIB, gib

__all__ = [
    "Check",
    "Status",
    "check_disk",
    "check_engines",
    "check_gpus",
    "check_hub",
    "check_isa",
    "check_libgomp",
    "check_memory",
    "check_models_dir",
    "check_python",
    "has_failed",
]

Status = Literal["ok", "warn", "fail"]

# The ready engine is built for these and dies of SIGILL without them (DESIGN section 4).
_READY_ENGINE_ISA = frozenset({"avx2", "fma", "f16c", "bmi2"})
_BUILD = "Build it for this processor: qrun engines install llamacpp --build"
# The least that is worth a word: the ready engine takes about 0.2 GiB, a small model's file about 1 GiB.
_DISK_FAIL_BYTES = GIB
_DISK_WARN_BYTES = 10 * GIB
# Below it only models of a few hundred million parameters fit.
_MEMORY_WARN_BYTES = GIB
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Check:
    """One verdict. `remedy` is what to do about it, None where there is nothing to do."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def has_failed(checks: Sequence[Check]) -> bool:
    """Whether any of `checks` failed."""
    return any(check.status == "fail" for check in checks)


def check_python(python_version: str, qrun_version: str, *, is_64_bit: bool) -> Check:
    """The interpreter qrun runs in. A 32-bit one cannot map a model's file."""
    detail = f"qrun {qrun_version} on Python {python_version}"
    if not is_64_bit:
        return Check("python", "fail", f"{detail}, 32-bit", "Install qrun with a 64-bit Python.")
    return Check("python", "ok", detail)


def check_engines(states: Sequence[EngineState], engines: Mapping[str, Engine], *, has_gpu: bool) -> list[Check]:
    """One check for each runner; `engines` are the installed ones, by runner.

    A missing engine is a failure only where no other is there: then nothing can be served.
    """
    missing: Status = "warn" if engines else "fail"
    checks = [_check_engine(state, engines.get(state.runner), missing, has_gpu=has_gpu) for state in states]
    return checks or [Check("engine", "fail", "qrun has no runner at all", "Install qrun-llm again.")]


def _check_engine(state: EngineState, engine: Engine | None, missing: Status, *, has_gpu: bool) -> Check:
    name = f"engine {state.runner}"
    install = f"Run: qrun engines install {state.runner}"
    if engine is None and not state.can_install:
        # Nobody can mend that this machine is another: a fault only where no other engine is there either.
        return Check(name, "ok" if missing == "warn" else "fail", state.why_not or "not for this machine", state.remedy)
    if engine is None:
        return Check(name, missing, state.why_not or "not installed", state.remedy or install)
    found = f"{engine.flavour} {engine.version or 'of unknown version'} ({engine.origin})"
    if state.why_not:
        return Check(name, "warn", f"{found}, but {state.why_not}", state.remedy)
    if has_gpu and engine.backends <= {"cpu"}:
        remedy = f"{install} --build, where the GPU's toolkit is installed"
        return Check(name, "warn", f"{found} runs on the CPU alone, though there is a GPU", remedy)
    return Check(name, "ok", found)


def check_gpus(hardware: Hardware) -> list[Check]:
    """The GPUs that can be used, then one warning for each thing the probe could not do."""
    names = ", ".join(f"{gpu.name} ({gib(gpu.budget_bytes)} for a model)" for gpu in hardware.gpus)
    checks = [Check("gpu", "ok", names or "none found: models run on the CPU")]
    return checks + [Check("gpu", "warn", note, "See qrun hardware.") for note in hardware.notes]


def check_memory(hardware: Hardware) -> Check:
    """The largest budget of any device: where none has room, nothing fits."""
    best = max(hardware.devices, key=lambda device: device.budget_bytes)
    detail = f"a model may take {gib(best.budget_bytes)} of {_memory_name(hardware, best.kind)}"
    if best.budget_bytes >= _MEMORY_WARN_BYTES:
        return Check("memory", "ok", detail)
    limited = hardware.ram_limit_bytes is not None
    remedy = "Raise the container's memory limit." if limited else "Close what holds memory, then look again."
    return Check("memory", "warn" if best.budget_bytes else "fail", detail, remedy)


def _memory_name(hardware: Hardware, kind: str) -> str:
    limit = hardware.ram_limit_bytes
    if kind != "cpu":
        return "GPU memory"
    return f"RAM ({gib(limit)} by the cgroup's limit)" if limit is not None else f"RAM ({gib(hardware.ram_bytes)})"


def check_disk(name: str, folder: Path, free_bytes: int, *, writable: bool) -> Check:
    """Room in one of qrun's folders, which need not exist yet: `writable` tells of what is there of its path."""
    name = f"disk {name}"
    if not writable:
        return Check(name, "fail", f"{folder} cannot be written to", "Mend its owner or mode, or move it (QRUN_*_DIR).")
    detail = f"{gib(free_bytes)} free at {folder}"
    if free_bytes >= _DISK_WARN_BYTES:
        return Check(name, "ok", detail)
    return Check(name, "warn" if free_bytes >= _DISK_FAIL_BYTES else "fail", detail, "Free some disk space there.")


def check_models_dir(folder: Path | None, n_repos: int | None) -> Check:
    """The folder of model repos. `n_repos`: how many it holds, None where it does not exist."""
    if folder is None:
        return Check(
            "models folder", "warn", "none set", "Set QRUN_MODELS_DIR, or pass --models-dir or a model's path."
        )
    if n_repos is None:
        return Check("models folder", "fail", f"{folder} does not exist", "Create it, or set QRUN_MODELS_DIR anew.")
    if n_repos == 0:
        return Check("models folder", "warn", f"{folder} holds no repo", "Put models there as org/name/FILE.gguf.")
    return Check("models folder", "ok", f"{n_repos} repo{'s' if n_repos > 1 else ''} in {folder}")


def check_hub(answer: HubAnswer | None) -> Check:
    """Whether the Hub answers; None: it was not asked, because HF_HUB_OFFLINE is set. Never a failure: work goes on
    with the models that are here.
    """
    if answer is None:
        return Check("hub", "ok", "not asked: HF_HUB_OFFLINE is set")
    if answer.status is None:
        detail = f"{answer.endpoint} cannot be reached: {answer.why_not}"
        remedy = "Models on this disk work without it. Check the network, the proxy settings and HF_ENDPOINT."
        return Check("hub", "warn", detail, remedy)
    if answer.status >= _SERVER_ERROR:
        return Check("hub", "warn", f"{answer.endpoint} answers with HTTP {answer.status}", "Try again later.")
    return Check("hub", "ok", f"{answer.endpoint} answers")


def check_isa(cpu: Cpu, engine: Engine | None) -> Check:
    """Whether the processor can run the ready engine. `engine` is the llama.cpp engine in place."""
    if cpu.arch != "x86_64":
        return Check("cpu", "ok", f"{cpu.arch}: engines need no particular instructions")
    if cpu.isa is None:
        return Check("cpu", "warn", "its instruction sets are unknown here", f"If the engine dies of SIGILL: {_BUILD}")
    lacking = sorted(_READY_ENGINE_ISA - cpu.isa)
    if not lacking:
        return Check("cpu", "ok", "has AVX2, FMA, F16C and BMI2, which the ready engine needs")
    detail = f"lacks {', '.join(lacking).upper()}, which the ready engine needs"
    if engine is not None and engine.flavour not in {"ready", "ready-gpu"}:
        return Check("cpu", "ok", f"{detail}; the {engine.flavour} engine is in use")
    return Check("cpu", "fail" if engine else "warn", detail, _BUILD)


def check_libgomp(engine: Engine | None, *, found: bool) -> Check:
    """The system's OpenMP library, which the ready engine loads and does not bring (Linux)."""
    if found:
        return Check("libgomp", "ok", "libgomp.so.1 is here")
    needed = engine is not None and engine.flavour == "ready"
    remedy = "Install it: apt install libgomp1, dnf install libgomp, or apk add libgomp."
    return Check("libgomp", "fail" if needed else "warn", "libgomp.so.1 is missing; the ready engine needs it", remedy)
