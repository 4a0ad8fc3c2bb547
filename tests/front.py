"""The HTTP front over a real engine, in a thread of the test's process."""

import asyncio
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web

from qrun.gateway.app import make_app
from qrun.gateway.served_names import ServedModel
from qrun.listener import listen, url_of
from qrun.placement import Placement
from qrun.runner import Engine, Launch, ServePlan
from qrun.supervisor import Supervisor
from qrun_llamacpp import LlamaCppRunner

SERVED = ServedModel(
    names=("SmolLM2-135M-Instruct", "tiny"),
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    n_ctx=2048,
    n_parallel=2,
    repo_id="qrun-demo/SmolLM2-135M-Instruct-GGUF",
    quant="Q4_1",
    format="gguf",
    engine="llamacpp (test)",
)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self):
        """The envelope's inside."""
        return self.json["error"]


class Front:
    """A front that serves, as its clients and its tests see it."""

    def __init__(self, url: str, supervisor: Supervisor, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self.supervisor = supervisor
        self._loop = loop

    def connect(self, timeout_s: float = 240) -> http.client.HTTPConnection:
        """A connection of one's own."""
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=timeout_s)

    def ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        """One request; a body that is not bytes is sent as JSON."""
        connection = self.connect()
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: object, **headers: str) -> Answer:
        """A POST."""
        return self.ask("POST", path, body, headers)

    def get(self, path: str, **headers: str) -> Answer:
        """A GET."""
        return self.ask("GET", path, None, headers)

    def busy_slots(self) -> int:
        """How many of the engine's slots work."""
        return sum(slot["is_processing"] for slot in self.get("/slots").json)

    def run(self, coroutine: Coroutine):
        """Run in the front's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(240)

    def kill_engine(self) -> None:
        """What the kernel does when memory is short."""
        os.kill(self.supervisor.pid, signal.SIGKILL)


def llamacpp_launch(flavour: str, executable: Path, model: Path, **settings: object) -> Callable[[Path], Launch]:
    """Launches of a real engine by the real runner: two slots of 2048 tokens, unless `settings` say otherwise."""
    engine = Engine("llamacpp", flavour, None, executable, "the tests")
    plan = ServePlan(
        model_path=model,
        alias=SERVED.id,
        n_ctx=2048,
        n_parallel=2,
        kv_cache_type="f16",
        placement=Placement("cpu", n_gpu_layers=0, n_cpu_moe=0),
        threads=2,
        cache_ram_bytes=0,
        private_dir=Path(),
    )
    plan = replace(plan, **settings)
    return lambda private_dir: LlamaCppRunner().launch(engine, replace(plan, private_dir=private_dir))


@contextmanager
def front_over(launch, folder: Path, served: ServedModel = SERVED, **options: object) -> Iterator[Front]:
    """A front over the engine that `launch` starts; `options` are those of `make_app`. Does not wait for the engine."""

    def supervisor() -> Supervisor:
        return Supervisor(launch, runner=LlamaCppRunner(), log_path=folder / "engine.log", environ=dict(os.environ))

    with front_of(supervisor, served, **options) as front:
        yield front


@contextmanager
def front_of(owner_of: Callable[[], object], served: ServedModel = SERVED, **options: object) -> Iterator[Front]:
    """A front over any owner of an engine, which `owner_of` makes in the front's event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start():
        owner = owner_of()
        app = make_app(owner, served, **options)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        listener = listen("127.0.0.1", 0)
        await web.SockSite(runner, listener).start()
        return owner, runner, url_of(listener)

    async def stop():
        await owner.stop()
        await runner.cleanup()

    owner, runner, url = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    try:
        yield Front(url, owner, loop)
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def wait_for(condition: Callable[[], object], within_s: float = 30) -> None:
    """Wait until the condition holds; fails when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {within_s} s"
        time.sleep(0.02)
