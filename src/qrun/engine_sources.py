"""Where an engine can be had from, and which of its sources is for this machine.

Pure but for the data file (`data/engines.toml`): what the machine offers is an argument (`engine_site` surveys it).
"""

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from qrun.errors import EngineMissing
from qrun.hardware import Hardware

__all__ = ["Backend", "BuildSource", "ReadyWheel", "Recipe", "Site", "Sources", "choose_recipe", "sources_of"]


@dataclass(frozen=True, slots=True)
class ReadyWheel:
    """A published wheel for one platform, and what it needs there. `sha256`: one for each kind of Python."""

    os: str
    arch: str
    backends: frozenset[str]
    isa: frozenset[str]
    libraries: tuple[str, ...]
    glibc: tuple[int, int] | None
    sha256: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Backend:
    """What building for one kind of GPU takes: a tool on this machine, by which its toolkit is known, and flags."""

    toolkit: str
    tool: str
    cmake_args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildSource:
    """A source package, and how it is configured."""

    distribution: str
    version: str
    sha256: str
    cmake_args: tuple[str, ...]
    backends: Mapping[str, Backend]


@dataclass(frozen=True, slots=True)
class Sources:
    """All sources of one runner's engine."""

    distribution: str
    version: str
    wheels: tuple[ReadyWheel, ...]
    build: BuildSource


@dataclass(frozen=True, slots=True)
class Site:
    """What this machine offers an installation. `missing`: of the libraries that wheels need; `glibc` None: no glibc.

    `compilers` are the C and the C++ compiler, None where one of them is not there. `tools` maps a toolkit's tool to
    its path.
    """

    os: str
    arch: str
    isa: frozenset[str] | None
    glibc: tuple[int, int] | None
    missing: frozenset[str]
    compilers: tuple[str, str] | None
    tools: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What will be installed. `cmake_args` are for a build; a `ready` wheel has several hashes, a source one."""

    flavour: Literal["ready", "native"]
    distribution: str
    version: str
    sha256: tuple[str, ...]
    backends: frozenset[str]
    cmake_args: tuple[str, ...] = ()


@cache
def sources_of(runner: str) -> Sources | None:
    """The sources of that runner's engine; None where qrun knows none."""
    known = tomllib.loads((files("qrun") / "data" / "engines.toml").read_text(encoding="utf-8"))
    return _sources(known[runner]) if runner in known else None


def choose_recipe(
    runner: str, sources: Sources, site: Site, hardware: Hardware, *, build: bool, allow_cpu: bool
) -> Recipe:
    """The ready wheel where it suits, else a build where a compiler is there; with `build` the build alone.

    Raises EngineMissing with the reasons against each. A machine with a GPU gets an engine for it unless `allow_cpu`.
    """
    gpus = _kinds(hardware)
    built = _try_build(sources.build, site, hardware, allow_cpu=allow_cpu)
    if build:
        if isinstance(built, Recipe):
            return built
        raise EngineMissing(runner, f"it cannot be built here: {built}", _remedy(sources, site, gpus))
    ready = _try_ready(sources, site, gpus, allow_cpu=allow_cpu)
    if isinstance(ready, Recipe):
        return ready
    if isinstance(built, Recipe):
        return built
    why = f"the ready engine is not for this machine ({ready}), and it cannot be built here ({built})"
    raise EngineMissing(runner, why, _remedy(sources, site, gpus))


def _try_ready(sources: Sources, site: Site, gpus: frozenset[str], *, allow_cpu: bool) -> Recipe | str:
    """The wheel, or why not."""
    wheel = next((one for one in sources.wheels if (one.os, one.arch) == (site.os, site.arch)), None)
    if wheel is None:
        return f"there is none for {site.os} on {site.arch}"
    if gpus and not gpus & wheel.backends and not allow_cpu:
        return f"it runs on the CPU alone, and there is a GPU ({', '.join(sorted(gpus))})"
    if why_not := _unmet(wheel, site):
        return why_not
    return Recipe("ready", sources.distribution, sources.version, wheel.sha256, wheel.backends)


def _unmet(wheel: ReadyWheel, site: Site) -> str | None:
    if site.isa is not None and (lacking := wheel.isa - site.isa):
        return f"the processor lacks {', '.join(sorted(lacking)).upper()}"
    if wheel.glibc is not None and (site.glibc is None or site.glibc < wheel.glibc):
        here = "there is none" if site.glibc is None else f"here is {_dotted(site.glibc)}"
        return f"it needs glibc {_dotted(wheel.glibc)}, {here}"
    if lacks := [library for library in wheel.libraries if library in site.missing]:
        return f"the system library {', '.join(lacks)} is missing"
    return None


def _try_build(source: BuildSource, site: Site, hardware: Hardware, *, allow_cpu: bool) -> Recipe | str:
    """The build with every backend this machine has GPUs and tools for, or why not."""
    gpus = _kinds(hardware)
    if site.compilers is None:
        return "there is no C++ compiler"
    usable = {kind for kind in gpus if kind in source.backends and source.backends[kind].tool in site.tools}
    if gpus and not usable and not allow_cpu:
        return f"{_toolkits(source, gpus)} is not installed"
    flags = [flag for kind in sorted(usable) for flag in _flags(source.backends[kind], site, hardware)]
    return Recipe(
        "native",
        source.distribution,
        source.version,
        (source.sha256,),
        frozenset(usable | {"cpu"}),
        (*source.cmake_args, *flags),
    )


def _flags(backend: Backend, site: Site, hardware: Hardware) -> tuple[str, ...]:
    if backend.tool != "nvcc":
        return backend.cmake_args
    # nvcc is often off the PATH, where CMake would not find it by itself; kernels are built for these cards alone.
    cards = sorted({gpu.compute_capability.replace(".", "") for gpu in hardware.gpus if gpu.compute_capability})
    kernels = (f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(cards)}",) if cards else ()
    return (*backend.cmake_args, f"-DCMAKE_CUDA_COMPILER={shlex.quote(site.tools[backend.tool])}", *kernels)


def _toolkits(source: BuildSource, gpus: frozenset[str]) -> str:
    known = sorted(source.backends[kind].toolkit for kind in gpus if kind in source.backends)
    return " or ".join(known) or f"a toolkit for {', '.join(sorted(gpus))}"


def _remedy(sources: Sources, site: Site, gpus: frozenset[str]) -> str:
    """What to install so that it works, in a sentence."""
    needs = [] if site.compilers else ["a C++ compiler (g++ or clang)"]
    if gpus and not any(kind in sources.build.backends and _has_tool(sources.build, kind, site) for kind in gpus):
        needs.append(_toolkits(sources.build, gpus))
    what = f"Install {' and '.join(needs)}, then try again" if needs else "See qrun engines"
    return f"{what}{', or give --allow-cpu-engine to run on the CPU' if gpus else ''}."


def _kinds(hardware: Hardware) -> frozenset[str]:
    return frozenset(gpu.kind for gpu in hardware.gpus)


def _has_tool(source: BuildSource, kind: str, site: Site) -> bool:
    return source.backends[kind].tool in site.tools


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _sources(table: Mapping[str, Any]) -> Sources:
    build = table["build"]
    backends = {
        kind: Backend(one["toolkit"], one["tool"], tuple(one["cmake_args"])) for kind, one in build["backends"].items()
    }
    return Sources(
        distribution=table["ready"]["distribution"],
        version=table["ready"]["version"],
        wheels=tuple(_wheel(one) for one in table["ready"]["wheels"]),
        build=BuildSource(
            build["distribution"], build["version"], build["sha256"], tuple(build["cmake_args"]), backends
        ),
    )


def _wheel(table: Mapping[str, Any]) -> ReadyWheel:
    major, _, minor = table.get("glibc", "").partition(".")
    return ReadyWheel(
        os=table["os"],
        arch=table["arch"],
        backends=frozenset(table["backends"]),
        isa=frozenset(table["isa"]),
        libraries=tuple(table["libraries"]),
        glibc=(int(major), int(minor)) if major else None,
        sha256=tuple(table["sha256"]),
    )
