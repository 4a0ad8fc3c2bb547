"""The decision for this machine: request, models, hardware and engines brought together and resolved.

The one place where the pure resolver meets the services. What a source refuses becomes the resolution's `error`, so
that programs are told in one way; a hardware file that cannot be read is raised. What the Hub was asked for is kept, so
that the next same request asks nothing (DESIGN 3.10).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from qrun.bandwidth import BandwidthStore
from qrun.changes import what_changed
from qrun.config import Config
from qrun.devices import with_bandwidths
from qrun.engine_models import simulated_states
from qrun.engines import engine_states
from qrun.errors import Failure, NothingFits, PinnedTooLarge, QrunError, UsageError
from qrun.hardware import Hardware
from qrun.hardware_file import load_hardware
from qrun.kept_files import KeptFiles
from qrun.learned import Learned
from qrun.learned_store import LearnedStore
from qrun.memory_holders import memory_holders
from qrun.model import Candidate, ModelFile
from qrun.model_source import ModelSource, open_source
from qrun.names import parse_model
from qrun.pin import Pin, pin_of
from qrun.pin_json import KeptDecision
from qrun.pins import PinStore, machine_of, options_of
from qrun.probe import probe_hardware, select_gpus
from qrun.quant import same_quant
from qrun.request import Request
from qrun.resolution import EngineState, Resolution
from qrun.resolve import resolve
from qrun.source import MOST_FINALISTS, FoundModel, Report, Source, quiet
from qrun.stored_mark import stored_marked

__all__ = ["Here", "resolve_here"]


@dataclass(frozen=True, slots=True)
class Here:
    """A resolution with what it was made of. `source` is None where the model could not even be looked for.

    `decision` is what `remember` keeps; None where nothing is to be kept.
    """

    resolution: Resolution
    source: Source | None
    hardware: Hardware
    decision: KeptDecision | None = None
    pins: PinStore | None = None
    files: KeptFiles | None = None  # who has the Hub's files; None: they are the source's own

    @property
    def to_fetch(self) -> tuple[ModelFile, ...]:
        """The chosen files that are to be fetched: none where they are on this disk. Raises the resolution's error."""
        candidate = self.resolution.require().candidate
        return () if candidate.stored or self.files is None else candidate.files

    def model_path(self, report: Report = quiet) -> Path:
        """The chosen candidate's first file on this disk, fetched where it is not there.

        Raises the resolution's error, and what `Source.local_path` and `KeptFiles.path` raise.
        """
        chosen = self.resolution.require()
        if self.files is not None:
            return self.files.path(chosen.candidate, report, is_latest=self.decision is not None)
        if self.source is None:  # only where there is an error, which `require` raised
            raise UsageError("no source of models was found.")
        return self.source.local_path(chosen.candidate, report)

    def close(self) -> None:
        """Let go of the source's connections, once its files are not wanted any more."""
        if self.source is not None:
            self.source.close()

    def remember(self) -> None:
        """Keep the decision for the next same request. Raises Failure where the data folder cannot be written."""
        if self.decision is None or self.pins is None:
            return
        try:
            self.pins.put(self.resolution.request, self.hardware, self.decision)
        except OSError as error:
            what = f"The decision could not be kept: {error.filename}: {error.strerror}."
            raise Failure(what, "Check QRUN_DATA_DIR.") from error


@dataclass(frozen=True, slots=True)
class _Question:
    """A request with everything that it is decided by."""

    request: Request
    config: Config
    opened: ModelSource
    hardware: Hardware
    engines: tuple[EngineState, ...]
    learned: Learned
    pins: PinStore | None  # None: the source is this disk, where looking again costs nothing
    bandwidths: BandwidthStore | None  # None: the machine is described by a file


def resolve_here(
    request: Request,
    *,
    config: Config,
    models_dir: Path | None = None,
    hardware_file: Path | None = None,
    assume_yes: bool = False,
    refresh: bool = False,
    offline: bool = False,
    remember: bool = True,
    to_fetch: bool = False,
    glance: bool = False,
) -> Here:
    """Decide `request` for this machine, or for the one in `hardware_file`.

    An engine that is not installed competes where it may be installed: with `assume_yes`, or where somebody can be
    asked; `to_fetch`, every engine does, for nothing is to be run. `refresh` decides anew what was decided before and
    warns of what changed; `remember=False` leaves it to the caller to keep the new decision. `glance` decides by labels
    and sizes alone, without the finalists' headers, and keeps nothing. Raises UsageError for a hardware file or GPU
    that cannot be meant; all else is in the resolution. The caller closes what is returned.
    """
    bandwidths = BandwidthStore(config.state_dir) if hardware_file is None else None
    hardware = _hardware(request, config, hardware_file, bandwidths)
    blank = Resolution(request, None, None, hardware, None)
    hub = replace(config.hub, offline=config.hub.offline or offline)
    source: Source | None = None
    try:
        model = parse_model(request.model)
        request = _with_quant(request, model.quant)
        blank = replace(blank, request=request)
        opened = open_source(model, config, hub, models_dir=models_dir, refresh=refresh)
        source = opened.source
        pins = PinStore(config.pins_dir) if opened.is_hub else None
        engines = _competing(config, hardware, assume_yes=assume_yes, to_fetch=to_fetch)
        learned = LearnedStore(config.state_dir).get(hardware)
        question = _Question(request, config, opened, hardware, engines, learned, pins, bandwidths)
        return _glanced(question) if glance else _answered(question, refresh=refresh, remember=remember)
    except QrunError as error:
        return Here(replace(blank, error=error), source, hardware)


def _answered(question: _Question, *, refresh: bool, remember: bool) -> Here:
    before = question.pins.get(question.request, question.hardware) if question.pins else None
    if before is not None and not refresh and (kept := _kept(question, before)):
        return _here(question, kept)
    here = _decided(question)
    if refresh and before is not None:
        here = _with_warning(here, what_changed(before.pin, before.chosen, here.resolution))
    return _remembered(here) if remember else here


def _glanced(question: _Question) -> Here:
    before = question.pins.get(question.request, question.hardware) if question.pins else None
    kept = _kept(question, before) if before is not None else None
    return _here(question, kept or _resolved(question, question.opened.find())[1])


def _kept(question: _Question, before: KeptDecision) -> Resolution | None:
    """What was decided before, on today's memory; None where offline it would take what is not stored."""
    found = stored_marked(before.found, question.opened.files, only=before.pin.names)
    if question.opened.hub.offline and not any(one.stored for one in found.candidates):
        return None
    resolution = _held(question, found, before.pin)
    if resolution.chosen is None or not before.pin.names(resolution.chosen.candidate):
        # Only now does it matter what else is stored: looking it all up costs more than the decision.
        resolution = _held(question, stored_marked(before.found, question.opened.files), before.pin)
    if isinstance(resolution.error, PinnedTooLarge):
        holders = memory_holders(question.hardware)
        return replace(resolution, error=replace(resolution.error, holders=holders))
    return resolution


def _held(question: _Question, found: FoundModel, pin: Pin) -> Resolution:
    return resolve(question.request, found, question.hardware, question.engines, pin=pin, learned=question.learned)


def _decided(question: _Question) -> Here:
    """A fresh decision: what the source has, resolved; again with the best headers; and the engine's word."""
    found = question.opened.find()
    question, first = _resolved(question, found)
    resolution = first
    if finalists := _finalists(first):
        exact = dict(zip(map(id, finalists), question.opened.source.sharpened(finalists), strict=True))
        found = replace(found, candidates=tuple(exact.get(id(one), one) for one in found.candidates))
        resolution = resolve(question.request, found, question.hardware, question.engines, learned=question.learned)
    from qrun.engine_word import with_engine_word  # starts an engine: a kept decision needs none of it

    found, resolution = with_engine_word(
        found,
        resolution,
        opened=question.opened,
        config=question.config,
        again=lambda left: resolve(
            question.request, left, question.hardware, question.engines, learned=question.learned
        ),
    )
    return _here(question, resolution, _to_keep(question, found, resolution))


def _resolved(question: _Question, found: FoundModel) -> tuple[_Question, Resolution]:
    """The resolution by a known bandwidth of RAM, where the choice lies in RAM: it is measured for that alone."""
    if not question.hardware.gpus:
        question = _measured(question)
    first = resolve(question.request, found, question.hardware, question.engines, learned=question.learned)
    in_ram = first.chosen is not None and not first.chosen.placement.whole_on_gpu
    if in_ram and question.hardware.ram_bandwidth_source != "measured":
        question = _measured(question)
        first = resolve(question.request, found, question.hardware, question.engines, learned=question.learned)
    return question, first


def _measured(question: _Question) -> _Question:
    if question.bandwidths is None:
        return question
    return replace(question, hardware=question.bandwidths.measured(question.hardware))


def _here(question: _Question, resolution: Resolution, decision: KeptDecision | None = None) -> Here:
    files = question.opened.files if question.pins else None
    return Here(resolution, question.opened.source, question.hardware, decision, question.pins, files)


def _finalists(resolution: Resolution) -> list[Candidate]:
    """The few candidates whose exact weights decide: the best by formula, or where nothing fits the smallest."""
    if resolution.chosen is not None:
        best = [resolution.chosen.candidate, *(one.candidate for one in resolution.alternatives)]
    elif isinstance(resolution.error, NothingFits):
        too_large = [one for one in resolution.rejected if one.reason == "too_large"]
        best = [one.candidate for one in sorted(too_large, key=lambda one: one.needed_bytes or 0)]
    else:
        return []
    return [one for one in best[:MOST_FINALISTS] if one.weights and one.weights.estimated]


def _to_keep(question: _Question, found: FoundModel, resolution: Resolution) -> KeptDecision | None:
    """What is kept of a decision: one that the Hub was asked for. Offline only a part of the candidates was seen."""
    if resolution.chosen is None or question.pins is None or question.opened.hub.offline:
        return None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    pin = pin_of(resolution.chosen, decided_at=now)
    return KeptDecision(pin, found, options_of(question.request), machine_of(question.hardware))


def _remembered(here: Here) -> Here:
    """`here` with its decision kept. Where it cannot be, the answer is none the worse: that is a warning."""
    try:
        here.remember()
    except Failure as error:
        return _with_warning(here, str(error))
    return here


def _with_warning(here: Here, warning: str) -> Here:
    resolution = replace(here.resolution, warnings=(*here.resolution.warnings, warning))
    return replace(here, resolution=resolution)


def _hardware(
    request: Request, config: Config, hardware_file: Path | None, bandwidths: BandwidthStore | None
) -> Hardware:
    if hardware_file is None:
        probed = probe_hardware(gpus=request.gpus, environ=config.environ)
        return bandwidths.known(probed) if bandwidths else probed
    described = with_bandwidths(load_hardware(hardware_file))
    return replace(described, gpus=select_gpus(described.gpus, request.gpus))


def _with_quant(request: Request, quant: str | None) -> Request:
    """The quant behind MODEL's colon counts as `--quant`. Raises UsageError where the two differ."""
    if quant is None or (request.quant is not None and same_quant(quant, request.quant)):
        return request
    if request.quant is not None:
        raise UsageError(f"{request.model} names the quant {quant}, and --quant names {request.quant}. Name one.")
    return replace(request, quant=quant)


def _competing(config: Config, hardware: Hardware, *, assume_yes: bool, to_fetch: bool) -> tuple[EngineState, ...]:
    """What competes: on simulated hardware every engine that runs there, else the installed and the installable."""
    states: Sequence[EngineState] = engine_states(config, hardware)
    if hardware.simulated:
        known = simulated_states(hardware)
        names = {state.runner for state in known}
        others = (state for state in states if state.runner not in names)
        return (*known, *(replace(state, installed=True, can_install=True, backends=None) for state in others))
    if to_fetch:
        return tuple(replace(state, can_install=True) for state in states)
    may_install = assume_yes or sys.stdin.isatty()
    return tuple(replace(state, can_install=state.can_install and may_install) for state in states)
