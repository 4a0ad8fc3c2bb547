"""The ready engine's process: xllamacpp's server core, told what to do by one JSON document.

Run as a script by the engine's own interpreter, never imported by qrun; needs xllamacpp and the standard library.
Given `QRUN_LLAMACPP_PLAN` (see `ready.py`) and, for a port, `LLAMA_API_KEY`. Its log goes to standard error.
It ends with status 0 on SIGTERM or SIGINT, at once also with requests open, and takes its socket with it; with status 1
and a line that begins with `qrun_llamacpp:` when it cannot serve. While the model loads Python is not asked: a SIGTERM
then ends the process in the system's own way.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["main"]

_TENSOR_SPLIT_LENGTH = 128  # llama.h LLAMA_MAX_DEVICES, which the binding insists on
# llama.cpp common/arg.cpp: what --n-cpu-moe N does for each of the first N layers.
_EXPERTS_OF_LAYER = r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"


def main() -> int:
    """Serve the plan until told to end."""
    plan = json.loads(os.environ["QRUN_LLAMACPP_PLAN"])
    try:
        import xllamacpp
    except ImportError as error:
        return _refuse(f"cannot import xllamacpp: {error}")
    try:
        _server = xllamacpp.Server(_params(xllamacpp, plan, os.environ.get("LLAMA_API_KEY")))
    except RuntimeError as error:
        return _refuse(f"{error}; the reason stands above")
    _wait_for_the_end()
    if plan["hostname"].endswith(".sock"):
        with suppress(FileNotFoundError):
            Path(plan["hostname"]).unlink()
    sys.stderr.flush()
    os._exit(0)  # the server's destructor would wait for open requests; the kernel takes the memory back at once


def _params(xllamacpp: Any, plan: Mapping[str, Any], api_key: str | None) -> Any:
    kv_type = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{plan['cache_type'].upper()}")
    flash = xllamacpp.llama_flash_attn_type
    params = xllamacpp.CommonParams()
    params.model.path = plan["model"]
    params.model_alias = [plan["alias"]]
    params.hostnames, params.port = [plan["hostname"]], plan["port"]
    params.api_keys = [api_key] if api_key else []
    params.n_ctx, params.n_parallel, params.kv_unified = plan["n_ctx"], plan["n_parallel"], False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = plan["n_threads"]
    params.cache_type_k = params.cache_type_v = kv_type
    params.flash_attn_type = (
        flash.LLAMA_FLASH_ATTN_TYPE_AUTO if plan["cache_type"] == "f16" else flash.LLAMA_FLASH_ATTN_TYPE_ENABLED
    )
    params.cache_ram_mib = plan["cache_ram_mib"]
    params.n_batch, params.n_ubatch = plan["n_batch"] or params.n_batch, plan["n_ubatch"] or params.n_ubatch
    params.fit_params = plan["fit"]  # false to serve, for the decision is made: the engine must not make its own
    params.endpoint_metrics = params.endpoint_slots = params.use_jinja = True
    params.ui, params.verbosity = False, plan["verbosity"]
    _place(params, plan)
    if plan["mmproj"]:
        params.mmproj.path, params.mmproj_use_gpu = plan["mmproj"], not plan["mmproj_on_cpu"]
    return params


def _place(params: Any, plan: Mapping[str, Any]) -> None:
    if plan["n_gpu_layers"] is not None:
        params.n_gpu_layers = plan["n_gpu_layers"]
    if plan["n_cpu_moe"]:
        params.tensor_buft_overrides = ",".join(
            _EXPERTS_OF_LAYER.format(layer=layer) for layer in range(plan["n_cpu_moe"])
        )
    if plan["tensor_split"]:
        parts = list(plan["tensor_split"])
        params.tensor_split = parts + [0.0] * (_TENSOR_SPLIT_LENGTH - len(parts))


def _wait_for_the_end() -> None:
    # A signal may arrive in any of the engine's threads: it is seen through a descriptor, not by interrupting this one.
    end, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    os.read(end, 1)


def _refuse(why: str) -> int:
    print(f"qrun_llamacpp: {why}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
