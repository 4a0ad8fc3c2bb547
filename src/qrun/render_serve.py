"""What `qrun serve` tells people on stderr, and the one line for programs on stdout.

On a terminal: what was chosen, why, and where it listens. In a pipe stderr gets a single line before the model is
loaded; stdout gets the endpoint's address when it answers, and nothing else, so that scripts can wait for it.
"""

import sys
from collections.abc import Iterator, Sequence

import click

from qrun.errors import EngineFailed
from qrun.gateway.served_names import ServedModel
from qrun.resolution import Choice, Resolution
from qrun.runner import Engine, Loaded
from qrun.step_down import Step
from qrun.units import MIB, size
from qrun.watching import promised_bytes

__all__ = ["show_ready", "show_serving", "show_step", "show_steps"]


_GAP_BYTES = 64 * MIB
_GAP_PART = 0.06  # the most that predictions are measured to be off by (docs/measurements/memory.md)


def show_serving(resolution: Resolution, engine: Engine, *, url: str) -> None:
    """Before the model is loaded: what will be served where."""
    choice = resolution.require()
    if not sys.stderr.isatty():
        parts = [f"serving {_files(choice)} on {url}/v1", *resolution.warnings]
        click.echo(f"qrun: {'; '.join(' '.join(part.split()) for part in parts)}", err=True)
        return
    for line in _lines(resolution, choice, engine, url):
        click.echo(line, err=True)


def show_step(failure: EngineFailed, step: Step) -> None:
    """Memory ran out: what is tried next. For people at once; a pipe hears of all steps together (`show_steps`)."""
    if sys.stderr.isatty():
        click.secho(f"  {failure.reason.partition(';')[0]}: trying again with {step.words}", err=True, fg="yellow")


def show_steps(steps: Sequence[Step]) -> None:
    """What was given up for the model to load, in one line of a pipe; nothing where nothing was."""
    if steps and not sys.stderr.isatty():
        given_up = ", ".join(step.words for step in steps)
        click.echo(f"qrun: memory ran out while the model loaded; it runs with {given_up}", err=True)


def show_ready(
    served: ServedModel, promised: Choice, *, url: str, steps: Sequence[Step] = (), loaded: Loaded | None = None
) -> None:
    """The model answers; what the engine gives and takes other than was decided is said in a line, not hidden."""
    show_steps(steps)
    if gaps := [*_gaps(served, promised), *(_memory_gaps(loaded, promised, stepped=bool(steps)) if loaded else ())]:
        click.echo(f"qrun: {'; '.join(gaps)}", err=True)
    if sys.stderr.isatty():
        click.secho(f"Ready: {url}/v1 (Ctrl-C stops it)", err=True, fg="green")
    if not sys.stdout.isatty():
        click.echo(f"{url}/v1")
        sys.stdout.flush()


def _gaps(served: ServedModel, promised: Choice) -> Iterator[str]:
    if (served.n_ctx, served.n_parallel) != (promised.n_ctx, promised.n_parallel):
        given = f"{served.n_ctx} tokens of context and {served.n_parallel} at once"
        yield f"the engine gives {given}; decided were {promised.n_ctx} and {promised.n_parallel}"


def _memory_gaps(loaded: Loaded, promised: Choice, *, stepped: bool) -> Iterator[str]:
    """Layers and memory. After steps down less is taken than was promised, which is what they were for."""
    layers = promised.placement.n_gpu_layers
    if promised.placement.on_gpu and None not in (layers, loaded.n_gpu_layers) and loaded.n_gpu_layers != layers:
        yield f"{loaded.n_gpu_layers} layers are on the GPU; decided were {layers}"
    taken, need = loaded.taken_bytes(on_gpu=promised.placement.on_gpu), promised_bytes(promised)
    gap = taken - need
    if abs(gap) > max(_GAP_BYTES, _GAP_PART * need) and (gap > 0 or not stepped):
        yield f"the engine takes {size(taken)} for the model; {size(need)} were expected"


def _lines(resolution: Resolution, choice: Choice, engine: Engine, url: str) -> Iterator[str]:
    yield click.style(_files(choice), bold=True)
    for reason in choice.why:
        yield f"  {reason}"
    slots = "1 request" if choice.n_parallel == 1 else f"{choice.n_parallel} requests"
    version = f" {engine.version}" if engine.version else ""
    yield f"  {choice.n_ctx} tokens of context, {slots} at once; {engine.runner}{version} ({engine.flavour})"
    for warning in resolution.warnings:
        yield click.style(f"  {warning}", fg="yellow")
    yield f"Listening on {url}/v1, loading the model"


def _files(choice: Choice) -> str:
    candidate = choice.candidate
    where = candidate.repo_id or candidate.files[0].path
    return f"{candidate.base_model} {candidate.quant} from {where} ({size(candidate.size_bytes)})"
