"""The runner: finds llama.cpp's server or the ready engine, and says how each is launched. Starts nothing to serve."""

import secrets
import socket
import sys
from pathlib import Path

from qrun.runner import (
    Engine,
    EngineSearch,
    FailureReason,
    Found,
    Inventory,
    Launch,
    Loaded,
    PlaceMemory,
    ServePlan,
    TcpAddress,
    UnixAddress,
    WorkDone,
)
from qrun_llamacpp.breakdown import places_told, refusal
from qrun_llamacpp.failures import explain
from qrun_llamacpp.find import find_engine, library_of
from qrun_llamacpp.loaded import loaded_in, work_done_in
from qrun_llamacpp.native import flags_in, server_argv
from qrun_llamacpp.ready import ready_argv, ready_env

__all__ = ["LlamaCppRunner"]

_LONGEST_SOCKET_PATH_BYTES = 103  # sun_path of sockaddr_un: 104 bytes on macOS, 108 on Linux, with the final NUL
_INVENTORY = Path(__file__).with_name("inventory.py")
_GPU_BACKENDS = frozenset({"cuda", "rocm", "vulkan", "metal"})


class LlamaCppRunner:
    """llama.cpp, as its own server (native, the system's, ready-gpu) or as the ready wheel's server core."""

    name = "llamacpp"
    formats = frozenset({"gguf"})

    def find(self, search: EngineSearch) -> Found:
        """QRUN_LLAMA_SERVER, qrun's own engine environment, the `llamacpp` extra beside qrun, then PATH."""
        return find_engine(search)

    def cannot(self, engine: Engine, plan: ServePlan) -> tuple[str, ...]:
        """Raw arguments, for the ready engine; a placement on a GPU, for an engine built without one; GPUs that the
        user has picked, for one that reaches them by Vulkan alone, whose order of them is its own.
        """
        lacks: list[str] = []
        if plan.placement.on_gpu and not engine.backends & _GPU_BACKENDS:
            lacks.append(f"placement {plan.placement.mode}")
        if plan.gpus_picked and plan.placement.on_gpu and engine.backends & _GPU_BACKENDS == {"vulkan"}:
            lacks.append("a choice of GPUs (--gpus, CUDA_VISIBLE_DEVICES)")
        if engine.flavour == "ready" and plan.extra_args:
            lacks.extend(flags_in(plan.extra_args) or plan.extra_args)
        return tuple(lacks)

    def inventory(self, engine: Engine) -> Inventory | None:
        """The names and types that its library itself knows; None for a server that has no library beside it."""
        library = library_of(engine)
        if library is None:
            return None
        python = engine.executable if engine.flavour == "ready" else Path(sys.executable)
        return Inventory((str(python), "-I", str(_INVENTORY), str(library)), library)

    def launch(self, engine: Engine, plan: ServePlan) -> Launch:
        """A server on a socket in the plan's private folder, or on loopback with a random key.

        Raises UsageError for an argument after `--` that would take the engine out of qrun's hands.
        """
        return self._launch(engine, plan, lay_out=False)

    def dry_run(self, engine: Engine, plan: ServePlan) -> Launch:
        """The same server, told to lay the model out first. Raises as `launch` does."""
        return self._launch(engine, plan, lay_out=True)

    def memory_told(self, log_text: str) -> tuple[PlaceMemory, ...]:
        """What llama.cpp's memory breakdown says of each device, then of the host; empty until it is whole."""
        return places_told(log_text)

    def refuses_model(self, log_text: str) -> str | None:
        """Why no memory would help: llama.cpp does not know the architecture, or a tensor's type."""
        return refusal(log_text)

    def _launch(self, engine: Engine, plan: ServePlan, *, lay_out: bool) -> Launch:
        address, key = _address(plan)
        # Set, if only to nothing: a LLAMA_API_KEY of the user's own would lock qrun out.
        env = {"LLAMA_API_KEY": key or ""}
        if plan.placement.on_gpu and plan.cuda_uuids and "cuda" in engine.backends:
            # By UUID: CUDA counts the fastest card first, the driver by PCI slot, and tensor_split as the driver.
            env["CUDA_VISIBLE_DEVICES"] = ",".join(plan.cuda_uuids)
        # On a port somebody else may answer before ours has failed to bind: a path that asks for the key tells.
        health_path = "/health" if key is None else "/props"
        if engine.flavour == "ready":
            env |= ready_env(plan, address, lay_out=lay_out)
            return Launch(ready_argv(engine), address, key, env, health_path)
        return Launch(server_argv(engine, plan, address, lay_out=lay_out), address, key, env, health_path)

    def loaded(self, log_text: str) -> Loaded | None:
        """The buffers and layers that its log tells of."""
        return loaded_in(log_text)

    def work_done(self, metrics_text: str) -> WorkDone | None:
        """The counters of its `/metrics`."""
        return work_done_in(metrics_text)

    def explain_failure(self, log_text: str) -> FailureReason | None:
        """The engine's own reason in a sentence; None where its log has none that we know."""
        return explain(log_text)


def _address(plan: ServePlan) -> tuple[UnixAddress | TcpAddress, str | None]:
    # A new name each time: llama-server does not start over the socket of one that was killed.
    path = plan.private_dir / f"{secrets.token_hex(4)}.sock"
    if sys.platform != "win32" and len(str(path).encode()) <= _LONGEST_SOCKET_PATH_BYTES:
        return UnixAddress(path), None
    return TcpAddress("127.0.0.1", _free_port()), secrets.token_urlsafe(32)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
