"""Both llama.cpp engines under their runner, started by the supervisor as qrun does, and asked over their sockets."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qrun.placement import Placement
from qrun.runner import Engine, Launch, ServePlan, UnixAddress
from qrun.supervisor import Supervisor
from qrun_llamacpp import LlamaCppRunner

FLAVOURS = {"native": "native_server", "ready": "ready_python"}


@dataclass(frozen=True)
class Engines:
    """One engine and a plan for it."""

    engine: Engine
    plan: ServePlan
    log_path: Path

    def supervisor(self, runner: LlamaCppRunner | None = None, **changes: Any) -> Supervisor:
        """An owner of the engine with the plan changed."""
        runner = runner or LlamaCppRunner()
        plan = replace(self.plan, **changes)
        return Supervisor(
            lambda private_dir: runner.launch(self.engine, replace(plan, private_dir=private_dir)),
            runner=runner,
            log_path=self.log_path,
            environ=os.environ,
        )

    def ask(self, questions: Callable[[Launch], Awaitable[Any]], **changes: Any) -> Any:
        """Start the engine, ask, stop it."""

        async def asked() -> Any:
            async with self.supervisor(**changes) as supervisor:
                return await questions(await supervisor.ready())

        return asyncio.run(asked())


def engines(flavour: str, executable: Path, model: Path, tmp_path: Path) -> Engines:
    """The engine of that flavour with a small plan for `model`."""
    engine = Engine("llamacpp", flavour, "test", executable, "test")
    plan = ServePlan(
        model_path=model,
        alias="tiny model: ünïcode",
        n_ctx=256,
        n_parallel=3,
        kv_cache_type="f16",
        placement=Placement("cpu", n_gpu_layers=0, n_cpu_moe=0),
        threads=2,
        cache_ram_bytes=64 * 2**20,
        private_dir=Path("unset"),
    )
    return Engines(engine, plan, tmp_path / "engine.log")


async def get(launch: Launch, path: str, body: object | None = None, *, key: str | None = None) -> tuple[int, Any]:
    """Status and JSON (else text) of one request."""
    import aiohttp

    address = launch.address
    connector = aiohttp.UnixConnector(str(address.socket)) if isinstance(address, UnixAddress) else None
    host = "localhost" if isinstance(address, UnixAddress) else f"{address.host}:{address.port}"
    key = launch.api_key if key is None else key
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.request(method, f"http://{host}{path}", json=body, headers=headers) as response,
    ):
        text = await response.text()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text
