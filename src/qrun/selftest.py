"""Whether an engine computes: it loads a tiny model and must continue "abc" with "def".

`--version` passes on builds that crash on their first token, and a build for another processor may start and compute
wrongly; the model's answer is known (scripts/make_selftest_model.py), so both are seen.
"""

import asyncio
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from qrun.config import Config
from qrun.errors import EngineFailed
from qrun.placement import Placement
from qrun.runner import Engine, Launch, Runner, ServePlan, UnixAddress
from qrun.supervisor import Supervisor

__all__ = ["PROMPT", "RIGHT_ANSWER", "SelfTest", "self_test"]

PROMPT = "abc"
RIGHT_ANSWER = "def"
_N_CTX = 256
_ALL_LAYERS = 2  # one block and the output layer
_READY_WITHIN_S = 120  # a first start on a GPU may compile kernels


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A self-test that passed: the answer, and how long start, answer and stop took."""

    answer: str
    took_s: float


def self_test(runner: Runner, engine: Engine, config: Config) -> SelfTest:
    """Load the tiny model with `engine` and check its answer. Raises EngineFailed with the engine's reason."""
    began_at = time.monotonic()
    log_path = config.state_dir / "engines" / f"selftest-{runner.name}.log"
    answer = asyncio.run(_ask(runner, engine, config, log_path))
    if answer != RIGHT_ANSWER:
        reason = f"its self-test answered {answer!r} where {RIGHT_ANSWER!r} is right: it computes wrongly here"
        raise EngineFailed(runner.name, reason, str(log_path))
    return SelfTest(answer, time.monotonic() - began_at)


async def _ask(runner: Runner, engine: Engine, config: Config, log_path: Path) -> str:
    supervisor = Supervisor(
        lambda private_dir: runner.launch(engine, _plan(engine, private_dir)),
        runner=runner,
        log_path=log_path,
        environ=config.environ,
        ready_timeout_s=_READY_WITHIN_S,
    )
    async with supervisor:
        launch = await supervisor.ready()
        return await _complete(runner, launch, log_path)


def _plan(engine: Engine, private_dir: Path) -> ServePlan:
    on_gpu = bool(engine.backends - {"cpu"})
    return ServePlan(
        model_path=Path(str(files("qrun") / "data" / "selftest.gguf")),
        alias="selftest",
        n_ctx=_N_CTX,
        n_parallel=1,
        kv_cache_type="f16",
        placement=Placement("gpu", n_gpu_layers=_ALL_LAYERS) if on_gpu else Placement("cpu", n_gpu_layers=0),
        threads=1,
        cache_ram_bytes=0,
        private_dir=private_dir,
    )


async def _complete(runner: Runner, launch: Launch, log_path: Path) -> str:
    import aiohttp

    body = {"prompt": PROMPT, "max_tokens": len(RIGHT_ANSWER), "temperature": 0}
    headers = {"Authorization": f"Bearer {launch.api_key}"} if launch.api_key else {}
    address = launch.address
    connector = (
        aiohttp.UnixConnector(str(address.socket)) if isinstance(address, UnixAddress) else aiohttp.TCPConnector()
    )
    host = "localhost" if isinstance(address, UnixAddress) else f"{address.host}:{address.port}"
    limit = aiohttp.ClientTimeout(total=_READY_WITHIN_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limit) as client,
            client.post(f"http://{host}/v1/completions", json=body, headers=headers) as response,
        ):
            answer: Any = await response.json(content_type=None)
            return str(answer["choices"][0]["text"])
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError, TypeError) as error:
        reason = f"its self-test got no answer ({type(error).__name__}: {error})"
        raise EngineFailed(runner.name, reason, str(log_path)) from error
