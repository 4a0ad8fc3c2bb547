"""`qrun run`: one question, or a chat in the terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click

from qrun.cli.engine_args import EngineArgsCommand
from qrun.cli.engine_wanted import ensure_engine
from qrun.cli.fetching import progress_of
from qrun.cli.options import request_options, yes_option
from qrun.config import read_config
from qrun.errors import QrunError, UsageError
from qrun.here import resolve_here
from qrun.render_asking import show_asking
from qrun.render_serve import show_step, show_steps
from qrun.request import Request
from qrun.stepped_start import SteppedStart

__all__ = ["run"]

_BYE = "/bye"


@click.command(cls=EngineArgsCommand)
@request_options
@click.argument("prompt", required=False)
@yes_option
def run(
    *,
    request: Request,
    models_dir: Path | None,
    prompt: str | None,
    engine_args: tuple[str, ...],
    refresh: bool,
    offline: bool,
    assume_yes: bool,
) -> None:
    """Ask MODEL one PROMPT, or chat with it in the terminal.

    What comes through a pipe is put below PROMPT, or is the prompt. On a terminal without a PROMPT a chat begins:
    Ctrl-C ends an answer, Ctrl-D or /bye the chat.
    """
    question = _question(prompt)
    config = read_config()
    with show_asking():
        here = resolve_here(
            request, config=config, models_dir=models_dir, assume_yes=assume_yes, refresh=refresh, offline=offline
        )
    ensure_engine(here, config=config, assume_yes=assume_yes, allow_cpu_engine=request.allow_cpu_engine)
    alias = here.resolution.require().candidate.base_model.rpartition("/")[2]
    start = SteppedStart(here, config=config, alias=alias, extra_args=engine_args)
    start.on_step = show_step
    if warnings := here.resolution.warnings:
        click.echo(f"qrun: {' '.join(warnings)}", err=True)  # one line: scripts count on at most one beside an error
    with progress_of(here) as report:
        start.report_to(report)
        start.fetch()
    from qrun.conversation import Conversation  # imports aiohttp: only when all else is well

    with Conversation(lambda: start.supervisor("run"), _say) as conversation:
        here.close()  # only now: a step down may have taken another quant
        show_steps(start.taken)
        for asked in [question] if question is not None else _questions(alias):
            _ask(conversation.ask, asked, ends_with_it=question is not None)


def _question(prompt: str | None) -> str | None:
    """The one question of this run; None where a person at a terminal is to be asked for many. Raises UsageError."""
    if sys.stdin.isatty():
        if prompt is None and not sys.stdout.isatty():
            raise UsageError("there is no prompt. Give it behind MODEL, or through a pipe.")
        piped = ""
    else:
        piped = sys.stdin.read().strip()
    parts = [part for part in (prompt, piped) if part and part.strip()]
    if not parts and (prompt is not None or not sys.stdin.isatty()):
        raise UsageError("the prompt is empty. Give it behind MODEL, or through a pipe.")
    return "\n\n".join(parts) or None


def _questions(alias: str) -> Iterator[str]:
    """What the user types, line by line, until Ctrl-D or /bye."""
    with suppress(ImportError):  # not on Windows: there the console edits lines itself
        import readline  # noqa: F401 - its import gives `input` a line editor and a history
    click.echo(f"Chat with {alias}. Ctrl-D or {_BYE} ends it, Ctrl-C ends an answer.", err=True)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            click.echo(err=True)
            return
        if line == _BYE:
            return
        if line:
            yield line


def _ask(ask: Callable[[str], None], question: str, *, ends_with_it: bool) -> None:
    """Ask, and end the answer's line. In a chat neither Ctrl-C nor a refusal ends more than the answer."""
    try:
        ask(question)
    except KeyboardInterrupt:
        click.echo()
        if ends_with_it:
            raise
        return
    except QrunError as error:
        if ends_with_it:
            raise
        click.echo(f"qrun: {error}", err=True)
        return
    click.echo()


def _say(piece: str, text: str) -> None:
    """Write a piece of the answer at once. Reasoning is shown to people only, dimmed."""
    if piece == "text":
        click.echo(text, nl=False)
    elif sys.stdout.isatty():
        click.secho(text, nl=False, dim=True)
    sys.stdout.flush()
