"""The options that decide a choice, once for all commands: they arrive as one `Request`.

Each is checked where it is read; what cannot be meant is refused in one line that names the option and what is allowed.
"""

import math
import re
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import click

from qrun.cli.hub_switches import models_dir_option, offline_option, refresh_option
from qrun.errors import UsageError
from qrun.model import FORMATS
from qrun.quant import parse_quant
from qrun.request import GOALS, KV_TYPES, PLACEMENTS, Request

__all__ = ["hardware_option", "request_options", "requests_options", "yes_option"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_FIELDS = tuple(one.name for one in fields(Request))
_INDEXES = re.compile(r"\d{1,3}(?:,\d{1,3})*")
_MOST_CTX = 2**31 - 1  # llama.cpp keeps positions in 32 bits


def request_options(command: Callable[..., _R]) -> Callable[..., _R]:
    """MODEL and the shared options.

    The command is called with `request: Request`, `models_dir: Path | None`, `refresh` and `offline`.
    """

    @wraps(command)
    def with_request(*args: Any, **kwargs: Any) -> _R:
        asked = _taken(kwargs)
        return command(*args, request=Request(**asked), **kwargs)

    return _decorated(with_request, click.argument("model"))


def requests_options(command: Callable[..., _R]) -> Callable[..., _R]:
    """As `request_options`, for any number of MODELs; the command is called with `requests: tuple[Request, ...]`."""

    @wraps(command)
    def with_requests(*args: Any, models: tuple[str, ...], **kwargs: Any) -> _R:
        asked = _taken(kwargs)
        return command(*args, requests=tuple(Request(model=model, **asked) for model in models), **kwargs)

    return _decorated(with_requests, click.argument("models", metavar="MODEL...", nargs=-1))


def yes_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """`--yes`: the command is called with `assume_yes`."""
    return click.option(
        "--yes", "assume_yes", is_flag=True, help="Answer every question with yes: installing an engine."
    )(command)


def hardware_option(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """`--hardware`: the command is called with `hardware_file`, a built-in machine's name or a file."""
    return click.option(
        "--hardware",
        "hardware_file",
        type=click.Path(path_type=Path),
        metavar="NAME|FILE",
        help="Decide for the built-in machine NAME (qrun hardware --profiles), or the one that FILE (TOML) describes; "
        "every engine that runs there counts as installed.",
    )(command)


def _taken(kwargs: dict[str, Any]) -> dict[str, Any]:
    """What of a command's parameters makes the request; --vision is not there yet."""
    return {name: kwargs.pop(name) for name in _FIELDS if name in kwargs}


def _decorated(
    command: Callable[..., _R], model: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[..., _R]:
    for option in reversed((model, *_OPTIONS)):
        command = option(command)
    return command


def _positive(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:  # noqa: ARG001  # click's
    if value is not None and value < 1:
        raise UsageError(f"{param.opts[-1]} must be 1 or more, not {value}.")
    return value


def _context(ctx: click.Context, param: click.Parameter, value: str | None) -> int | Literal["auto"] | None:  # noqa: ARG001  # click's
    if value is None:
        return None
    if value.lower() == "auto":
        return "auto"
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= _MOST_CTX:
        raise UsageError(f"--ctx must be a number of tokens, 1 or more, or auto, not {value!r}.")
    return int(value)


def _quant(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:  # noqa: ARG001  # click's
    if value is None:
        return None
    label = parse_quant(value)
    if label is None:
        raise UsageError(f"--quant {value!r} is no quant. Write it as files do: Q4_K_M, UD-Q4_K_XL, 4.25bpw, 4bit.")
    return label


def _gpus(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:  # noqa: ARG001  # click's
    if value is None:
        return None
    if value.lower() == "none":
        return ()
    if not _INDEXES.fullmatch(value):
        raise UsageError(f"--gpus must be none or numbers from qrun hardware, like 0,2, not {value!r}.")
    indexes = tuple(int(part) for part in value.split(","))
    if len(set(indexes)) < len(indexes):
        raise UsageError(f"--gpus names a GPU twice: {value}.")
    return indexes


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:  # noqa: ARG001  # click's
    if value is None:
        return ()
    names = tuple(part.strip() for part in value.split(",") if part.strip())
    if not names:
        raise UsageError("--engines is empty. Name runners, as qrun engines lists them: --engines llamacpp.")
    return names


def _floor(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:  # noqa: ARG001  # click's
    if value is not None and (not math.isfinite(value) or value <= 0):
        raise UsageError(f"{param.opts[-1]} must be a number above 0, not {value:g}.")
    return value


_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.option(
        "--goal",
        type=click.Choice(GOALS),
        default="balanced",
        show_default=True,
        help="What the choice is to be best at.",
    ),
    click.option(
        "--ctx",
        "n_ctx",
        callback=_context,
        metavar="N|auto",
        help="Tokens of context for each request; default 8192, or less where the model has less. "
        "auto: the longest that fits.",
    ),
    click.option(
        "--parallel",
        "n_parallel",
        type=int,
        callback=_positive,
        metavar="N",
        help="Requests served at once; default: up to 4 where they fit, on the CPU 1.",
    ),
    click.option(
        "--placement",
        type=click.Choice(PLACEMENTS),
        default="auto",
        show_default=True,
        help="auto: the fastest memory that holds a good quant. gpu: whole on the GPU or not at all. "
        "any: all placements compete.",
    ),
    click.option("--quant", callback=_quant, metavar="Q", help="Only this quant, e.g. Q4_K_M."),
    click.option("--format", type=click.Choice(FORMATS), help="Only this format."),
    click.option("--engine", metavar="E", help="Only this engine."),
    click.option("--engines", callback=_names, metavar="A,B", help="Only these engines."),
    click.option(
        "--kv-type",
        type=click.Choice((*KV_TYPES, "auto")),
        default="auto",
        show_default=True,
        help="Type of the KV cache. auto: f16, or q8_0 where f16 does not fit.",
    ),
    click.option(
        "--gpus", callback=_gpus, metavar="0,2|none", help="Only these GPUs, by their numbers in qrun hardware."
    ),
    click.option(
        "--min-tps", type=float, callback=_floor, metavar="X", help="At least X tokens per second, as expected."
    ),
    click.option(
        "--max-kld", type=float, callback=_floor, metavar="X", help="A KL divergence of at most X, as expected."
    ),
    click.option(
        "--allow-cpu-engine", is_flag=True, help="Let an engine without GPU support run on a machine with a GPU."
    ),
    models_dir_option,
    refresh_option,
    offline_option,
)
