"""llama-server's command line for a plan. What the user wrote after `--` takes the place of ours.

Flags as in `llama-server --help` of llama.cpp 0.5.0 (llama-cpp-python 0.3.36); `find` refuses servers that lack one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qrun.errors import UsageError
from qrun.runner import Engine, ServePlan, TcpAddress, UnixAddress
from qrun.units import MIB

__all__ = ["CPU_BATCH", "LOG_LEVEL", "NEEDED_FLAGS", "flags_in", "server_argv"]

# The level at which the log tells the context, layers and memory that were really taken (3, the default, tells none of
# it); 2.5 KB a request instead of 1, and no prompt: that would be 5.
LOG_LEVEL = 4

# Every spelling of the settings that are ours; one of the user's drops ours.
_CTX = ("-c", "--ctx-size")
_PARALLEL = ("-np", "--parallel")
_THREADS = ("-t", "--threads")
_KV_K = ("-ctk", "--cache-type-k")
_KV_V = ("-ctv", "--cache-type-v")
_FLASH = ("-fa", "--flash-attn")
_LAYERS = ("-ngl", "--gpu-layers", "--n-gpu-layers")
_DEVICE = ("-dev", "--device")
_BATCH = ("-b", "--batch-size")
_MICRO_BATCH = ("-ub", "--ubatch-size")
_PROJECTOR_PLACE = ("--mmproj-offload", "--no-mmproj-offload")
_CPU_MOE = ("-ncmoe", "--n-cpu-moe", "-cmoe", "--cpu-moe")
_SPLIT = ("-ts", "--tensor-split")
_FIT = ("-fit", "--fit")
_CACHE_RAM = ("-cram", "--cache-ram")
_ALIAS = ("-a", "--alias")
_METRICS = ("--metrics",)
_SLOTS = ("--slots", "--no-slots")
_JINJA = ("--jinja", "--no-jinja")
_UI = ("--no-webui", "--webui", "--ui", "--no-ui")
_VERBOSITY = ("-lv", "--verbosity", "--log-verbosity", "-v", "--verbose", "--log-verbose")
_PROJECTOR = ("-mm", "--mmproj", "--no-mmproj")

# A prompt is read in batches, and a client that leaves is noticed between two. On a CPU 512 tokens, one computing step
# of llama.cpp, take seconds; its own 2048 are read no faster there (llama-bench, alternating, 2 busy cores: 85 to 145
# tokens/s with 512, 82 to 93 with 2048).
CPU_BATCH = 512

NEEDED_FLAGS = tuple(
    next(spelling for spelling in spellings if spelling.startswith("--"))
    for spellings in (
        *(_CTX, _PARALLEL, _THREADS, _KV_K, _KV_V, _FLASH, _LAYERS, _DEVICE, _CPU_MOE, _SPLIT),
        *(_FIT, _CACHE_RAM, _ALIAS, _METRICS, _SLOTS, _JINJA, _UI, _VERBOSITY, _PROJECTOR, _BATCH),
    )
)

# Where it listens, who may ask and what it serves: qrun could not reach the engine, or would tell of another model.
_OURS_ALONE = {
    **dict.fromkeys(("--host", "--port", "--reuse-port", "--api-prefix"), "where the engine listens"),
    **dict.fromkeys(("--api-key", "--api-key-file", "--ssl-key-file", "--ssl-cert-file"), "who may ask the engine"),
    **dict.fromkeys(("-m", "--model", "-mu", "--model-url", "-dr", "--docker-repo"), "which model is served"),
    **dict.fromkeys(("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file"), "which model is served"),
    **dict.fromkeys(("--models-dir", "--models-preset"), "which model is served"),
}


@dataclass(frozen=True, slots=True)
class _Setting:
    spellings: tuple[str, ...]
    words: tuple[str, ...]


def server_argv(
    engine: Engine, plan: ServePlan, address: UnixAddress | TcpAddress, *, lay_out: bool = False
) -> tuple[str, ...]:
    """The command; with `lay_out` the server first lays the model out and tells the memory that takes.

    Raises UsageError for an argument after `--` that decides what is qrun's to decide.
    """
    theirs = frozenset(flags_in(plan.extra_args))
    if taken := sorted(theirs & _OURS_ALONE.keys()):
        raise UsageError(f"{taken[0]} cannot stand after --: qrun decides {_OURS_ALONE[taken[0]]}.")
    ours = [setting for setting in _settings(plan, lay_out=lay_out) if theirs.isdisjoint(setting.spellings)]
    return (
        *(str(engine.executable), "-m", str(plan.model_path), *_listen(address)),
        *(word for setting in ours for word in setting.words),
        *plan.extra_args,
    )


def flags_in(arguments: Sequence[str]) -> tuple[str, ...]:
    """The flags among raw arguments, each once; negative numbers are values."""
    flags = (word.partition("=")[0] for word in arguments if word.startswith("-") and not _is_number(word))
    return tuple(dict.fromkeys(flags))


def _settings(plan: ServePlan, *, lay_out: bool) -> list[_Setting]:
    placement = plan.placement
    settings = [
        _Setting(_CTX, ("-c", str(plan.n_ctx * plan.n_parallel))),
        _Setting(_PARALLEL, ("-np", str(plan.n_parallel))),
        _Setting(_THREADS, ("-t", str(plan.threads))),
        _Setting(_KV_K, ("-ctk", plan.kv_cache_type)),
        _Setting(_KV_V, ("-ctv", plan.kv_cache_type)),
        # A quantized V cache exists only with flash attention; `auto` would turn it off where it is slow, and fail.
        _Setting(_FLASH, ("-fa", "auto" if plan.kv_cache_type == "f16" else "on")),
        # The decision is made: the engine must not make its own. When it does, its first step is to lay the model out.
        _Setting(_FIT, ("--fit", "on" if lay_out else "off")),
        _Setting(_CACHE_RAM, ("--cache-ram", str(plan.cache_ram_bytes // MIB))),
        _Setting(_ALIAS, ("--alias", plan.alias)),
        _Setting(_METRICS, ("--metrics",)),
        _Setting(_SLOTS, ("--slots",)),
        _Setting(_JINJA, ("--jinja",)),
        _Setting(_UI, ("--no-webui",)),
        _Setting(_VERBOSITY, ("-lv", str(LOG_LEVEL))),
    ]
    if placement.n_gpu_layers is not None:
        settings.append(_Setting(_LAYERS, ("-ngl", str(placement.n_gpu_layers))))
    if not placement.on_gpu:
        settings.append(_Setting(_DEVICE, ("--device", "none")))  # without layers a GPU still gets a context
        settings.append(_Setting(_BATCH, ("-b", str(plan.n_batch or CPU_BATCH))))
    elif plan.n_batch is not None:
        settings.append(_Setting(_BATCH, ("-b", str(plan.n_batch))))
    if plan.n_batch is not None:
        settings.append(_Setting(_MICRO_BATCH, ("-ub", str(plan.n_batch))))
    if placement.n_cpu_moe:
        settings.append(_Setting(_CPU_MOE, ("--n-cpu-moe", str(placement.n_cpu_moe))))
    if placement.tensor_split is not None:
        settings.append(_Setting(_SPLIT, ("--tensor-split", ",".join(f"{part:g}" for part in placement.tensor_split))))
    if plan.mmproj_path is not None:
        settings.append(_Setting(_PROJECTOR, ("--mmproj", str(plan.mmproj_path))))
        if plan.mmproj_on_cpu:
            settings.append(_Setting(_PROJECTOR_PLACE, ("--no-mmproj-offload",)))
    return settings


def _listen(address: UnixAddress | TcpAddress) -> tuple[str, ...]:
    if isinstance(address, UnixAddress):
        return ("--host", str(address.socket))
    return ("--host", address.host, "--port", str(address.port))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
