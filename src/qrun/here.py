"""The decision for this machine: request, models, hardware and engines brought together and resolved.

The one place where the pure resolver meets the services. What a source refuses becomes the resolution's `error`, so
that programs are told in one way; a hardware file that cannot be read is raised.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from qrun.config import Config
from qrun.engines import engine_states
from qrun.errors import QrunError, UsageError
from qrun.hardware import Hardware
from qrun.hardware_file import load_hardware
from qrun.names import parse_model
from qrun.probe import probe_hardware, select_gpus
from qrun.quant import same_quant
from qrun.request import Request
from qrun.resolution import EngineState, Resolution
from qrun.resolve import resolve
from qrun.source import Report, Source, quiet
from qrun.source_pick import pick_source

__all__ = ["Here", "resolve_here"]


@dataclass(frozen=True, slots=True)
class Here:
    """A resolution with what it was made of. `source` is None where the model could not even be looked for."""

    resolution: Resolution
    source: Source | None
    hardware: Hardware

    def model_path(self, report: Report = quiet) -> Path:
        """The chosen candidate's first file on this disk. Raises the resolution's error, or FileDamaged."""
        chosen = self.resolution.require()
        if self.source is None:  # only where there is an error, which `require` raised
            raise UsageError("no source of models was found.")
        return self.source.local_path(chosen.candidate, report)


def resolve_here(
    request: Request,
    *,
    config: Config,
    models_dir: Path | None = None,
    hardware_file: Path | None = None,
    assume_yes: bool = False,
) -> Here:
    """Decide `request` for this machine, or for the one in `hardware_file`.

    An engine that is not installed competes where it may be installed: with `assume_yes`, or where somebody can be
    asked. Raises UsageError for a hardware file or GPU that cannot be meant; all else is in the resolution.
    """
    hardware = _hardware(request, config, hardware_file)
    blank = Resolution(request, None, None, hardware, None)
    source: Source | None = None
    try:
        model = parse_model(request.model)
        request = _with_quant(request, model.quant)
        source = pick_source(model, models_dir or config.models_dir)
        found = source.find(model)
    except QrunError as error:
        return Here(replace(blank, request=request, error=error), source, hardware)
    states = engine_states(config, hardware)
    may_install = assume_yes or hardware.simulated or sys.stdin.isatty()
    engines = [_available(state, simulated=hardware.simulated, may_install=may_install) for state in states]
    return Here(resolve(request, found, hardware, engines), source, hardware)


def _hardware(request: Request, config: Config, hardware_file: Path | None) -> Hardware:
    if hardware_file is None:
        return probe_hardware(gpus=request.gpus, environ=config.environ)
    described = load_hardware(hardware_file)
    return replace(described, gpus=select_gpus(described.gpus, request.gpus))


def _with_quant(request: Request, quant: str | None) -> Request:
    """The quant behind MODEL's colon counts as `--quant`. Raises UsageError where the two differ."""
    if quant is None or (request.quant is not None and same_quant(quant, request.quant)):
        return request
    if request.quant is not None:
        raise UsageError(f"{request.model} names the quant {quant}, and --quant names {request.quant}. Name one.")
    return replace(request, quant=quant)


def _available(state: EngineState, *, simulated: bool, may_install: bool) -> EngineState:
    """What competes: on simulated hardware every engine that runs there, else the installed and the installable."""
    if simulated:
        return replace(state, installed=True, can_install=True, backends=None)
    return replace(state, can_install=state.can_install and may_install)
