"""Installing an engine: a new environment, a self-test, and only then the stamp that makes it the one in force.

The earlier engine stays in force until the stamp is replaced, by one rename; an installation that is broken off, in
whatever way, leaves a folder that the next one clears. Two at once do the work once: they take turns by a lock.
"""

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from qrun.config import Config
from qrun.engine_build import WheelKey, build_wheel, keep_wheel, kept_wheel, wheel_key
from qrun.engine_env import Workshop, make_environment, pip_command, requirement
from qrun.engine_loads import loads_of
from qrun.engine_site import survey
from qrun.engine_sources import Recipe, Site, Sources, choose_recipe, sources_of
from qrun.engine_stamp import Stamp, read_stamp, write_stamp
from qrun.engines import search_for
from qrun.errors import EngineFailed, EngineMissing, UsageError
from qrun.hardware import Hardware, kinds_driven
from qrun.registry import runner_named
from qrun.runner import Engine, EngineSearch, Runner
from qrun.selftest import SelfTest, self_test

__all__ = ["Installed", "Progress", "Report", "install"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of an installation; a build counts its parts. `stays`: the user should be able to read it afterwards."""

    step: str
    done: int | None = None
    total: int | None = None
    stays: bool = False


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Installed:
    """The engine in force after `install`. `already`: it was there and passed its self-test again.

    `environment` is None where the engine is not one that qrun installed.
    """

    engine: Engine
    environment: Path | None
    test: SelfTest
    took_s: float
    already: bool = False


def install(
    name: str, *, build: bool, config: Config, hardware: Hardware, report: Report, allow_cpu_engine: bool = False
) -> Installed:
    """Have that runner's engine in place and tested: the one that is there where it will do, else a new one.

    Raises UsageError for a name that is none; EngineMissing where no source is for this machine, or what the user named
    cannot serve; EngineFailed where the self-test fails; Failure where pip or the compiler does; FileDamaged for a
    package with another sha256.
    """
    runner, sources = runner_named(name), sources_of(name)
    if sources is None:
        raise UsageError(f"qrun knows no source of an engine for {name}. See qrun engines.")
    folder = config.engine_dir(name)
    folder.mkdir(parents=True, exist_ok=True)
    began_at = time.monotonic()
    with _turn(folder, report):
        job = _Job(
            runner, sources, survey(sources, config, hardware), hardware, config, report, build, allow_cpu_engine
        )
        _clear(folder)
        return job.keep_what_is_there(began_at) or job.take_the_machines(began_at) or job.make(began_at)


@dataclass(frozen=True, slots=True)
class _Job:
    runner: Runner
    sources: Sources
    site: Site
    hardware: Hardware
    config: Config
    report: Report
    build: bool
    allow_cpu: bool

    def keep_what_is_there(self, began_at: float) -> Installed | None:
        """The engine in force, if it will do and passes its self-test today."""
        stamp = read_stamp(self._folder)
        if stamp is None or not self._will_do(stamp):
            return None
        engine = self._engine_in(stamp.environment)
        if engine is None:
            return None
        self.report(Progress(f"testing the installed {stamp.flavour} engine"))
        try:
            test = self._tested(engine)
        except (EngineFailed, EngineMissing) as failed:
            why = failed.why if isinstance(failed, EngineMissing) else failed.reason
            self.report(Progress(f"the installed engine is replaced: {why}"))
            return None
        return Installed(engine, stamp.environment, test, time.monotonic() - began_at, already=True)

    def take_the_machines(self, began_at: float) -> Installed | None:
        """An engine that is not qrun's (a llama-server on PATH), if it is the one in force and passes the self-test."""
        search = search_for(self.config, self.runner.name)
        found = self.runner.find(search)
        if found.engine is None and search.override is not None:  # it comes first: one installed would not be used
            raise EngineMissing(self.runner.name, found.why_not or "it cannot serve", found.remedy or "")
        engine = found.engine
        if self.build or engine is None or engine.executable.is_relative_to(self._folder):
            return None
        if not self._suits(engine.backends):
            return None
        self.report(Progress(f"testing {engine.executable}"))
        try:
            test = self_test(self.runner, engine, self.config)
        except EngineFailed as failed:
            if search.override is not None:
                raise
            self.report(Progress(f"{engine.executable} is passed over: {failed.reason}"))
            return None
        return Installed(engine, None, test, time.monotonic() - began_at, already=True)

    def make(self, began_at: float) -> Installed:
        """A new environment with the engine, tested and put in force."""
        recipe = self._choose()
        environment = self._folder / f"{recipe.flavour}-{recipe.version}-{secrets.token_hex(4)}"
        try:
            engine, test = self._fill(environment, recipe)
        except BaseException:
            shutil.rmtree(environment, ignore_errors=True)
            raise
        self._put_in_force(environment, recipe, engine, test)
        return Installed(engine, environment, test, time.monotonic() - began_at)

    @property
    def _folder(self) -> Path:
        return self.config.engine_dir(self.runner.name)

    def _choose(self) -> Recipe:
        return choose_recipe(
            self.runner.name, self.sources, self.site, self.hardware, build=self.build, allow_cpu=self.allow_cpu
        )

    def _will_do(self, stamp: Stamp) -> bool:
        if not self._suits(stamp.backends):
            return False
        if not self.build:
            return True
        try:
            wanted = self._choose()
        except EngineMissing:
            return stamp.flavour == "native"  # it can no longer be built here; the one that was is better than none
        return (stamp.flavour, stamp.version) == ("native", wanted.version) and wanted.backends <= stamp.backends

    def _suits(self, backends: frozenset[str]) -> bool:
        """Whether an engine with these can use this machine's GPUs, or need not."""
        gpus = {gpu.kind for gpu in self.hardware.gpus}
        return not gpus or bool(gpus & kinds_driven(backends)) or self.allow_cpu

    def _fill(self, environment: Path, recipe: Recipe) -> tuple[Engine, SelfTest]:
        scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=self._folder))
        workshop = Workshop(scratch, self._log_path, self.config.environ)
        try:
            self.report(Progress(_first_step(recipe), stays=recipe.note is not None))
            python = make_environment(environment, workshop)
            if recipe.flavour == "native":
                self._build(python, recipe, workshop)
            else:
                self._fetch(python, recipe, workshop)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return self._test(environment, recipe)

    def _fetch(self, python: Path, recipe: Recipe, workshop: Workshop) -> None:
        wanted = python.parent.parent / "requirements.txt"
        wanted.write_text(requirement(recipe.distribution, recipe.version, recipe.sha256))
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--progress-bar", "off"]
        workshop.run([*pip_command(python), "install", *options, "-r", str(wanted)])

    def _build(self, python: Path, recipe: Recipe, workshop: Workshop) -> None:
        users = self.config.environ.get("CMAKE_ARGS", "")
        key = wheel_key(recipe, self.site, self.hardware, users_cmake_args=users)
        wheels = self.config.cache_dir / "wheels"
        wheels.mkdir(parents=True, exist_ok=True)
        with _turn(wheels, self.report):  # engines of several data folders share it
            wheel = kept_wheel(wheels, key) or self._built(python, recipe, key, wheels, workshop)
        self.report(Progress(f"installing {wheel.name}"))
        workshop.run([*pip_command(python), "install", "--no-deps", "--no-index", str(wheel)])

    def _built(self, python: Path, recipe: Recipe, key: WheelKey, wheels: Path, workshop: Workshop) -> Path:
        step = f"building {recipe.distribution} {recipe.version} ({', '.join(sorted(recipe.backends))})"
        self.report(Progress(step))
        for left in wheels.glob("new-*"):
            shutil.rmtree(left, ignore_errors=True)
        into = wheels / f"new-{secrets.token_hex(4)}"
        try:
            wheel = build_wheel(
                recipe,
                key=key,
                site=self.site,
                hardware=self.hardware,
                python=python,
                into=into,
                workshop=workshop,
                progress=lambda done, total: self.report(Progress(step, done, total)),
            )
            return keep_wheel(wheels, key, wheel)
        finally:
            shutil.rmtree(into, ignore_errors=True)

    def _test(self, environment: Path, recipe: Recipe) -> tuple[Engine, SelfTest]:
        self.report(Progress("testing it with a tiny model"))
        engine = self._engine_in(environment)
        if engine is None:
            raise EngineFailed(self.runner.name, f"{recipe.distribution} {recipe.version} holds no engine")
        try:
            return engine, self._tested(engine)
        except EngineFailed as failed:
            hint = f"; try qrun engines install {self.runner.name} --build" if recipe.flavour != "native" else ""
            reason = f"the new {recipe.flavour} engine does not pass its self-test: {failed.reason}{hint}"
            raise EngineFailed(self.runner.name, reason, failed.log_path) from failed

    def _tested(self, engine: Engine) -> SelfTest:
        """The self-test, of an engine that sees a GPU where there is one. Raises EngineMissing where it sees none, for
        it would pass on the CPU, and EngineFailed.
        """
        if not self._suits(engine.backends):
            why = f"the {engine.flavour} engine sees no GPU here: the driver does not show it one"
            build = f"qrun engines install {self.runner.name} --build"
            remedy = f"See what vulkaninfo --summary lists, or with the GPU's toolkit installed run {build}."
            raise EngineMissing(self.runner.name, why, remedy)
        return self_test(self.runner, engine, self.config)

    def _engine_in(self, environment: Path) -> Engine | None:
        return self.runner.find(EngineSearch(environment)).engine

    def _put_in_force(self, environment: Path, recipe: Recipe, engine: Engine, test: SelfTest) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        stamp = Stamp(environment, engine.flavour, recipe.version, engine.backends, now, round(test.took_s, 3))
        write_stamp(self._folder, stamp)
        loads_of(self.runner, engine, self.config)  # kept, so that no decision has to wait for the answer

    @property
    def _log_path(self) -> Path:
        return self.config.state_dir / "engines" / f"install-{self.runner.name}.log"


def _first_step(recipe: Recipe) -> str:
    """All that is said where only one line may be."""
    what = f"{recipe.distribution} {recipe.version}"
    if recipe.flavour != "native":
        return f"fetching {what}{f' ({recipe.note})' if recipe.note else ''}"
    return f"building {what} from source, which takes minutes unless it was built here before"


@contextmanager
def _turn(folder: Path, report: Report) -> Iterator[None]:
    """Wait until no other qrun installs here."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        report(Progress("waiting for another qrun that installs it"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _clear(folder: Path) -> None:
    """Remove what broken-off installations left, and environments replaced by an earlier one.

    The environment that this one replaces stays until the next: an engine may be running in it.
    """
    stamp = read_stamp(folder)
    for old in folder.iterdir():
        if old.is_dir() and (stamp is None or old != stamp.environment):
            shutil.rmtree(old, ignore_errors=True)
