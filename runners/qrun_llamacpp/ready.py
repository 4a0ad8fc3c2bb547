"""The ready engine's command: the wheel's interpreter runs `xllamacpp_server.py`, which gets the plan as JSON.

The plan goes by environment, so that no name of a file or model has to survive a command line.
"""

import json
from pathlib import Path

from qrun.runner import Engine, ServePlan, TcpAddress, UnixAddress
from qrun.units import MIB
from qrun_llamacpp.native import CPU_BATCH, LOG_LEVEL

__all__ = ["PLAN_VARIABLE", "ready_argv", "ready_env"]

PLAN_VARIABLE = "QRUN_LLAMACPP_PLAN"
_SCRIPT = Path(__file__).with_name("xllamacpp_server.py")


def ready_argv(engine: Engine) -> tuple[str, ...]:
    """-I: no variable or folder of the user's reaches the engine's Python; faulthandler names a SIGILL in the log."""
    return (str(engine.executable), "-I", "-X", "faulthandler", str(_SCRIPT))


def ready_env(plan: ServePlan, address: UnixAddress | TcpAddress, *, lay_out: bool = False) -> dict[str, str]:
    """What the script reads, in the words of xllamacpp.CommonParams. `lay_out` as in `native.server_argv`."""
    placement = plan.placement
    document = {
        "model": str(plan.model_path),
        "alias": plan.alias,
        "fit": lay_out,
        "hostname": str(address.socket) if isinstance(address, UnixAddress) else address.host,
        "port": 0 if isinstance(address, UnixAddress) else address.port,
        "n_ctx": plan.n_ctx * plan.n_parallel,
        "n_parallel": plan.n_parallel,
        "n_threads": plan.threads,
        "verbosity": LOG_LEVEL,
        "cache_type": plan.kv_cache_type,
        "cache_ram_mib": plan.cache_ram_bytes // MIB,
        "n_batch": plan.n_batch or (None if placement.on_gpu else CPU_BATCH),
        "n_ubatch": plan.n_batch,
        "n_gpu_layers": placement.n_gpu_layers if placement.on_gpu else 0,
        "n_cpu_moe": placement.n_cpu_moe or 0,
        "tensor_split": placement.tensor_split,
        "mmproj": str(plan.mmproj_path) if plan.mmproj_path else None,
        "mmproj_on_cpu": plan.mmproj_on_cpu,
    }
    return {PLAN_VARIABLE: json.dumps(document)}
