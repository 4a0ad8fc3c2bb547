"""`qrun serve`: decide, listen, start the engine, answer until a signal."""

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path

import click

from qrun.cli.engine_args import EngineArgsCommand
from qrun.cli.engine_wanted import ensure_engine
from qrun.cli.fetching import progress_of
from qrun.cli.options import request_options, yes_option
from qrun.config import read_config
from qrun.errors import UsageError
from qrun.gateway.served_names import ServedModel, same_name_key
from qrun.here import Here, resolve_here
from qrun.learned_store import LearnedStore
from qrun.listener import check_exposure, listen, url_of
from qrun.render_asking import show_asking
from qrun.render_serve import show_ready, show_serving, show_step
from qrun.request import Request
from qrun.stepped_start import SteppedStart
from qrun.watching import Sampled, Watch

__all__ = ["serve"]


@click.command(cls=EngineArgsCommand)
@request_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen on; 0: any free one."
)
@click.option("--api-key", metavar="KEY", help="Key that clients must send; default: QRUN_API_KEY.")
@click.option("--insecure", is_flag=True, help="Let other machines in without a key.")
@click.option(
    "--served-name",
    "served_names",
    multiple=True,
    metavar="NAME",
    help="Name the model is served under; may be given again, the first is its id.",
)
@yes_option
def serve(
    *,
    request: Request,
    models_dir: Path | None,
    host: str,
    port: int,
    api_key: str | None,
    served_names: tuple[str, ...],
    engine_args: tuple[str, ...],
    insecure: bool,
    refresh: bool,
    offline: bool,
    assume_yes: bool,
) -> int:
    """Serve MODEL on an OpenAI-compatible endpoint on this machine."""
    config = read_config()
    key = _checked_key(api_key if api_key is not None else config.api_key)
    _check_names(served_names)
    check_exposure(host, api_key=key, insecure=insecure)
    with listen(host, port) as listener, ExitStack() as progress:
        with show_asking():
            here = resolve_here(
                request, config=config, models_dir=models_dir, assume_yes=assume_yes, refresh=refresh, offline=offline
            )
        ensure_engine(here, config=config, assume_yes=assume_yes, allow_cpu_engine=request.allow_cpu_engine)
        names = served_names or (_bare_name(here),)
        start = SteppedStart(here, config=config, alias=names[0], extra_args=engine_args)
        start.on_step = show_step
        url = url_of(listener)
        show_serving(here.resolution, start.engine, url=url)
        start.report_to(progress.enter_context(progress_of(here)))
        from qrun.serving import serve as serve_until_signal  # imports aiohttp: only when all else is well

        supervisor = start.supervisor(str(listener.getsockname()[1]))

        def on_ready(served: ServedModel) -> None:
            progress.close()
            here.close()
            loaded = start.runner.loaded(supervisor.log_tail())
            show_ready(served, start.choice, url=url, steps=start.taken, loaded=loaded)

        async def watch(front: Sampled) -> None:
            watching = Watch(
                start.choice,
                start.runner.loaded(supervisor.log_tail()),
                runner=start.runner,
                hardware=here.hardware,
                store=LearnedStore(config.state_dir),
                engine_pid=lambda: supervisor.pid,
            )
            await watching.run(front, [attempt.choice for attempt in start.failed])

        ended = asyncio.run(
            serve_until_signal(
                supervisor,
                lambda: _served(here, start, names),
                listener,
                api_key=key,
                hosts=None if insecure else frozenset({host.lower()}),
                on_ready=on_ready,
                watch=watch,
            )
        )
    return 128 + ended  # 130 or 143, as a process that the signal had ended


def _checked_key(key: str | None) -> str | None:
    if key is not None and (not key.strip() or not key.isprintable()):
        raise UsageError("the API key is empty, or holds characters that no HTTP header can carry.")
    return key


def _check_names(names: tuple[str, ...]) -> None:
    for name in names:
        if not same_name_key(name) or "," in name or not name.isprintable():
            raise UsageError(f"--served-name {name!r} must have letters or digits, and no comma.")


def _bare_name(here: Here) -> str:
    """The base model's name without its organisation, as `ollama` and others have their names."""
    return here.resolution.require().candidate.base_model.rpartition("/")[2]


def _served(here: Here, start: SteppedStart, names: tuple[str, ...]) -> ServedModel:
    """What is promised to clients: as decided, or as the steps down have left of it."""
    choice = start.choice
    candidate = choice.candidate
    return ServedModel(
        names=names,
        base_model=candidate.base_model,
        n_ctx=choice.n_ctx,
        n_parallel=choice.n_parallel,
        repo_id=candidate.repo_id,
        quant=candidate.quant,
        format=candidate.format,
        engine=f"{start.engine.runner} ({start.engine.flavour})",
        size_bytes=candidate.size_bytes,
        n_ctx_train=candidate.shape.n_ctx_train if candidate.shape else None,
        created_at_s=int(time.time()),
        other_names=(here.resolution.request.model,),
    )
