"""What this machine offers an engine's installation: libraries, a compiler, GPU toolkits."""

import ctypes
import platform
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from qrun.config import Config
from qrun.engine_sources import Site, Sources
from qrun.hardware import Hardware

__all__ = ["survey"]

_ARCH_NAMES = {"aarch64": "arm64"}  # Linux's name and Apple's for the same processors
_C = ("cc", "gcc", "clang")
_CXX = ("c++", "g++", "clang++")
_CUDA_HOMES = ("CUDA_HOME", "CUDA_PATH")
_USUAL_FOLDERS = {
    "nvcc": ("/usr/local/cuda/bin",),
    "hipcc": ("/opt/rocm/bin",),
}  # where the makers' installers put them


def survey(sources: Sources, config: Config, hardware: Hardware) -> Site:
    """Look for what `sources` may need. Starts nothing; a shared library is tried by loading it."""
    libraries = {library for wheel in sources.wheels for library in wheel.libraries if wheel.os == hardware.os}
    wanted = (backend.tool for backend in sources.build.backends.values())
    return Site(
        os=hardware.os,
        arch=_ARCH_NAMES.get(hardware.cpu.arch, hardware.cpu.arch),
        isa=hardware.cpu.isa,
        glibc=_glibc(),
        missing=frozenset(library for library in libraries if not _loads(library)),
        compilers=_compilers(config),
        tools={tool: path for tool in wanted if (path := _tool(tool, config))},
        vulkan_drivers=frozenset(_vulkan_drivers(config)),
    )


def _compilers(config: Config) -> tuple[str, str] | None:
    """The C and the C++ compiler that a build would use: CC and CXX, else the usual names."""
    c = _first(_named(config, "CC") or _C, config.path)
    cxx = _first(_named(config, "CXX") or _CXX, config.path)
    return (c, cxx) if c and cxx else None


def _named(config: Config, variable: str) -> tuple[str, ...]:
    words = config.environ.get(variable, "").split()
    return (words[0],) if words else ()


def _tool(tool: str, config: Config) -> str | None:
    homes = (config.environ.get(variable) for variable in _CUDA_HOMES) if tool == "nvcc" else ()
    folders = [*(str(Path(home, "bin")) for home in homes if home), *_USUAL_FOLDERS.get(tool, ())]
    return shutil.which(tool, path=config.path) or next(
        filter(None, (shutil.which(tool, path=f) for f in folders)), None
    )


def _first(names: Iterable[str], path: str) -> str | None:
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


def _vulkan_drivers(config: Config) -> Iterator[str]:
    """The manifests that Vulkan's loader would read (Vulkan-Loader, docs/LoaderDriverInterface.md, on Linux)."""
    environ = config.environ
    named = environ.get("VK_DRIVER_FILES") or environ.get("VK_ICD_FILENAMES")
    if named:  # in place of all others
        places = [Path(place) for place in named.split(":") if place]
    else:
        home = Path(environ.get("HOME", "/"))
        bases = (
            environ.get("XDG_CONFIG_HOME") or str(home / ".config"),
            *(environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"),
            "/etc",
            environ.get("XDG_DATA_HOME") or str(home / ".local/share"),
            *(environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":"),
        )
        added = environ.get("VK_ADD_DRIVER_FILES", "").split(":")
        places = [*map(Path, filter(None, added)), *(Path(base, "vulkan/icd.d") for base in bases if base)]
    for place in places:
        yield from (path.name for path in (place.glob("*.json") if place.is_dir() else [place]) if path.is_file())


def _glibc() -> tuple[int, int] | None:
    name, version = platform.libc_ver()
    numbers = version.split(".")
    if name != "glibc" or len(numbers) < 2 or not all(part.isdigit() for part in numbers[:2]):  # noqa: PLR2004 - major, minor
        return None
    return int(numbers[0]), int(numbers[1])


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)  # the loader's own answer: ctypes.util needs ldconfig or a compiler for its guess
    except OSError:
        return False
    return True
