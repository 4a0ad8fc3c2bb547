"""Where an engine can be had from, and which of its sources is for this machine.

Pure but for the data file (`data/engines.toml`): what the machine offers is an argument (`engine_site` surveys it).
"""

import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from qrun.errors import EngineMissing
from qrun.hardware import Hardware, kinds_driven

__all__ = [
    "Backend",
    "BuildSource",
    "ReadySource",
    "ReadyWheel",
    "Recipe",
    "Site",
    "Sources",
    "choose_recipe",
    "sources_of",
]

_VULKAN_LOADER = "libvulkan.so.1"
_NVIDIAS_DRIVER = " (nvidia_icd.json, of NVIDIA's graphics driver; in a container NVIDIA_DRIVER_CAPABILITIES=all)"


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
class ReadySource:
    """A published distribution with a wheel for some platforms. `what` says whose build it is, in a phrase."""

    distribution: str
    version: str
    what: str
    wheels: tuple[ReadyWheel, ...]


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
    """All sources of one runner's engine: the default, one for GPUs without their toolkit, and one to build."""

    ready: ReadySource
    ready_gpu: ReadySource
    build: BuildSource

    @property
    def wheels(self) -> tuple[ReadyWheel, ...]:
        """Every wheel of every source."""
        return (*self.ready.wheels, *self.ready_gpu.wheels)


@dataclass(frozen=True, slots=True)
class Site:
    """What this machine offers an installation. `missing`: of the libraries that wheels need; `glibc` None: no glibc.

    `compilers` are the C and the C++ compiler, None where one of them is not there. `tools` maps a toolkit's tool to
    its path. `vulkan_drivers` are the names of the manifests by which Vulkan's loader finds its drivers.
    """

    os: str
    arch: str
    isa: frozenset[str] | None
    glibc: tuple[int, int] | None
    missing: frozenset[str]
    compilers: tuple[str, str] | None
    tools: Mapping[str, str]
    vulkan_drivers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What will be installed. `cmake_args` are for a build; a ready wheel has several hashes, a source one.

    `note` is what the user should hear of it before it is taken, a phrase that follows its name.
    """

    flavour: Literal["ready", "ready-gpu", "native"]
    distribution: str
    version: str
    sha256: tuple[str, ...]
    backends: frozenset[str]
    cmake_args: tuple[str, ...] = ()
    note: str | None = None


@cache
def sources_of(runner: str) -> Sources | None:
    """The sources of that runner's engine; None where qrun knows none."""
    known = tomllib.loads((files("qrun") / "data" / "engines.toml").read_text(encoding="utf-8"))
    return _sources(known[runner]) if runner in known else None


def choose_recipe(
    runner: str, sources: Sources, site: Site, hardware: Hardware, *, build: bool, allow_cpu: bool
) -> Recipe:
    """The ready wheel where it suits, else a build, else on a machine with a GPU the ready wheel for GPUs.

    With `build` the build alone. A machine with a GPU gets an engine that can use it, and with `allow_cpu` one for the
    CPU where there is none. Raises EngineMissing with the reasons against each.
    """
    gpus = _kinds(hardware)
    built = _try_build(sources.build, site, hardware, gpus)
    ready = _try_ready(sources.ready, site, gpus)
    for_gpu = _try_ready_gpu(sources, site, gpus)
    tried = [built] if build else [ready, built, for_gpu]
    if gpus and allow_cpu:
        none: frozenset[str] = frozenset()
        on_cpu = _try_build(sources.build, site, hardware, none)
        tried += [on_cpu] if build else [_try_ready(sources.ready, site, none), on_cpu]
    if recipe := next((one for one in tried if isinstance(one, Recipe)), None):
        return recipe
    if build:
        why = f"it cannot be built here: {built}"
    else:
        why = f"the ready engine is not for this machine ({ready}), and it cannot be built here ({built})"
        why += f"; the ready one for GPUs cannot be used ({for_gpu})" if gpus else ""
    raise EngineMissing(runner, why, _remedy(sources, site, gpus, for_gpu))


def _try_ready(source: ReadySource, site: Site, gpus: frozenset[str]) -> Recipe | str:
    """The wheel for this platform, or why not. Where there are `gpus`, it must be able to use one."""
    wheel = _wheel_for(source, site)
    if wheel is None:
        return f"there is none for {site.os} on {site.arch}"
    if gpus and not gpus & kinds_driven(wheel.backends):
        return f"it runs on the CPU alone, and there is a GPU ({', '.join(sorted(gpus))})"
    if why_not := _unmet(wheel, site):
        return why_not
    return Recipe("ready", source.distribution, source.version, wheel.sha256, wheel.backends)


def _try_ready_gpu(sources: Sources, site: Site, gpus: frozenset[str]) -> Recipe | str:
    """The wheel that reaches GPUs without their toolkit, or why not."""
    found = _try_ready(sources.ready_gpu, site, gpus)
    if not gpus or isinstance(found, str):
        return found if isinstance(found, str) else "there is no GPU"
    if "vulkan" in found.backends and not _has_vulkan_driver(site, gpus):
        return "the GPU has no Vulkan driver"
    return replace(found, flavour="ready-gpu", note=_note(sources, gpus))


def _wheel_for(source: ReadySource, site: Site) -> ReadyWheel | None:
    return next((one for one in source.wheels if (one.os, one.arch) == (site.os, site.arch)), None)


def _has_vulkan_driver(site: Site, gpus: frozenset[str]) -> bool:
    """Whether a manifest may be that GPU's. NVIDIA's are all named after it; Mesa's lie there for every other card."""
    if gpus == {"cuda"}:
        return any("nvidia" in name.lower() for name in site.vulkan_drivers)
    return bool(site.vulkan_drivers)


def _note(sources: Sources, gpus: frozenset[str]) -> str:
    toolkits = _known_toolkits(sources.build, gpus - {"vulkan"})
    faster = f"; with {' or '.join(toolkits)}, --build makes one that needs no Vulkan" if toolkits else ""
    return f"{sources.ready_gpu.what}{faster}"


def _unmet(wheel: ReadyWheel, site: Site) -> str | None:
    if site.isa is not None and (lacking := wheel.isa - site.isa):
        return f"the processor lacks {', '.join(sorted(lacking)).upper()}"
    if wheel.glibc is not None and (site.glibc is None or site.glibc < wheel.glibc):
        here = "there is none" if site.glibc is None else f"here is {_dotted(site.glibc)}"
        return f"it needs glibc {_dotted(wheel.glibc)}, {here}"
    if lacks := [library for library in wheel.libraries if library in site.missing]:
        return f"the system library {', '.join(lacks)} is missing"
    return None


def _try_build(source: BuildSource, site: Site, hardware: Hardware, gpus: frozenset[str]) -> Recipe | str:
    """The build with every backend there are `gpus` and tools for, or why not."""
    if site.compilers is None:
        return "there is no C++ compiler"
    usable = {kind for kind in gpus if kind in source.backends and _has_tool(source, kind, site)}
    if gpus and not usable:
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
    return " or ".join(_known_toolkits(source, gpus)) or f"a toolkit for {', '.join(sorted(gpus))}"


def _known_toolkits(source: BuildSource, gpus: frozenset[str]) -> list[str]:
    return sorted(source.backends[kind].toolkit for kind in gpus if kind in source.backends)


def _remedy(sources: Sources, site: Site, gpus: frozenset[str], for_gpu: Recipe | str) -> str:
    """What to install so that it works, in a sentence."""
    needs = [] if site.compilers else ["a C++ compiler (g++ or clang)"]
    if gpus and not any(kind in sources.build.backends and _has_tool(sources.build, kind, site) for kind in gpus):
        needs.append(_toolkits(sources.build, gpus))
    what = f"Install {' and '.join(needs)}, then try again" if needs else "See qrun engines"
    if isinstance(for_gpu, Recipe):
        what += ", or leave --build out for the ready engine that uses Vulkan"
    elif gpus and (vulkan := _lacks_of_vulkan(sources, site, gpus)):
        what += f", or install {' and '.join(vulkan)} for the ready engine that uses Vulkan"
    return f"{what}{', or give --allow-cpu-engine to run on the CPU' if gpus else ''}."


def _lacks_of_vulkan(sources: Sources, site: Site, gpus: frozenset[str]) -> list[str]:
    """What of Vulkan would make the ready engine for GPUs one for this machine; empty where that would not do."""
    wheel = _wheel_for(sources.ready_gpu, site)
    if wheel is None or not gpus & kinds_driven(wheel.backends):
        return []
    if _unmet(wheel, replace(site, missing=site.missing - {_VULKAN_LOADER})):
        return []
    loader = ["Vulkan's loader (libvulkan1 or vulkan-loader)"] if _VULKAN_LOADER in site.missing else []
    if _has_vulkan_driver(site, gpus):
        return loader
    return [*loader, f"the GPU's Vulkan driver{_NVIDIAS_DRIVER if gpus == {'cuda'} else ''}"]


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
        ready=_ready(table["ready"]),
        ready_gpu=_ready(table["ready_gpu"]),
        build=BuildSource(
            build["distribution"], build["version"], build["sha256"], tuple(build["cmake_args"]), backends
        ),
    )


def _ready(table: Mapping[str, Any]) -> ReadySource:
    wheels = tuple(_wheel(one) for one in table["wheels"])
    return ReadySource(table["distribution"], table["version"], table["what"], wheels)


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
