"""What the tests of the installers need: an index of wheels in a folder, chosen tools on PATH, homes that start empty.

The wheels of qrun's dependencies are fetched once and kept in the tests' home; qrun's own is built from the checkout.
pip and uv see this folder alone, so an installation is real, quick, and needs no network.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import qrun

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "install.sh"
NEWER = "99.1"

# What install.sh may use, and no compiler, Python or uv among it.
_TOOLS = (
    *("awk", "cat", "date", "dirname", "du", "env", "grep", "ln", "mkdir", "mv", "readlink", "rm", "rmdir"),
    *("sed", "sh", "sleep", "tail", "tr", "uname"),
)
# A driver with one card, in place of NVML: the rest of pynvml is the real module's text, which stands above this.
_ONE_CARD = """
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlSystemGetDriverVersion(): return "570.86.15"
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(card): return "NVIDIA GeForce RTX 4060"
def nvmlDeviceGetUUID(card): return "GPU-5f1c7a52-0d3e-4a86-9a55-3f1f6d0c9b11"
def nvmlDeviceGetPciInfo(card): return type("Pci", (), {"busId": "00000000:01:00.0"})
def nvmlDeviceGetMemoryInfo(card): return type("Memory", (), {"total": 8188 * 2**20, "free": 7900 * 2**20})
def nvmlDeviceGetCudaComputeCapability(card): return (8, 9)
def nvmlDeviceGetMigMode(card): return [0, 0]
"""


@dataclass(frozen=True)
class Home:
    """A user's home folder, and what the user has on PATH. Nothing of the home of who runs the tests is seen in it."""

    path: Path
    tools: Path
    index: Path
    caches: Path

    def command(self, *arguments: str, script: Path = SCRIPT) -> list[str]:
        """The script as started from its file, by dash where there is one: the strictest shell."""
        return [shutil.which("dash") or "sh", str(script), *arguments]

    def environment(self, **environ: str) -> dict[str, str]:
        """All that the script is given."""
        return {
            "HOME": str(self.path),
            "PATH": str(self.tools),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "PIP_CACHE_DIR": str(self.caches / "pip"),
            "UV_NO_CONFIG": "1",
            "UV_OFFLINE": "1",
            "UV_FIND_LINKS": str(self.index),
            "UV_CACHE_DIR": str(self.caches / "uv"),
            "UV_PYTHON_DOWNLOADS": "never",
            **environ,
        }

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """Start the script in a session of its own: no terminal, and one group with all that it starts."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(**environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the script from its file, with its input closed and no terminal."""
        shell = shutil.which("sh") or "sh"
        return self._run([shell, "-c", 'exec "$@" <&-', "sh", *self.command(*arguments)], None, environ)

    def pipe(self, *arguments: str, umask: int = -1, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the script as `curl ... | sh -s -- ARGUMENTS` does: the shell reads it from a pipe."""
        shell, _ = self.command()
        return self._run([shell, "-s", "--", *arguments], SCRIPT.read_text(), environ, umask=umask)

    def _run(
        self, argv: list[str], text: str | None, environ: dict[str, str], *, umask: int = -1
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            check=False,
            input=text,
            capture_output=True,
            text=True,
            env=self.environment(**environ),
            cwd=self.path,
            start_new_session=True,
            umask=umask,
            timeout=280,
        )

    @property
    def qrun(self) -> Path:
        """The command, where it belongs."""
        return self.path / ".local" / "bin" / "qrun"

    @property
    def tool(self) -> Path:
        """The folder of qrun's own environments."""
        return self.path / ".local" / "share" / "qrun" / "tool"

    def ask(self, *arguments: str) -> str:
        """What the installed qrun prints."""
        done = self._run([str(self.qrun), *arguments], None, {})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def engine(self) -> dict[str, object] | None:
        """The llama.cpp engine that the installed qrun lists."""
        (listed,) = [one for one in json.loads(self.ask("engines", "--json"))["engines"] if one["runner"] == "llamacpp"]
        return listed["engine"]

    def left(self) -> list[str]:
        """Every file and link in the home, and every folder that bears qrun's name."""
        paths = sorted(self.path.rglob("*"))
        return [str(path.relative_to(self.path)) for path in paths if not _is_plain_folder(path) or "qrun" in path.name]


def make_tools(folder: Path, *more: str | Path) -> Path:
    """A folder of links for PATH: what the script may use, and `more`, by name or path."""
    folder.mkdir(parents=True)
    for tool in (*_TOOLS, *more):
        found = shutil.which(tool)
        assert found, f"no {tool} here"
        (folder / Path(tool).name).symlink_to(found)
    return folder


def python() -> Path:
    """The Python that the tests' environment is made from."""
    return Path(sys._base_executable).resolve()


def dependencies(kept: Path) -> Path:
    """A folder with the wheels of qrun's dependencies, its engine and its build tools, and uv; fetched if not there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["llamacpp"],
        *project["build-system"]["requires"],
        "uv>=0.9",
    ]
    key = hashlib.sha256(json.dumps([wanted, sys.version_info[:2]]).encode()).hexdigest()[:12]
    folder = kept / f"install-{key}"
    if not folder.is_dir():
        new = kept / f"install-{key}.new-{os.getpid()}"
        pip("download", "--dest", str(new), *wanted)
        new.replace(folder)
    return folder


def make_index(folder: Path, wheels: Iterable[Path]) -> Path:
    """An index of those wheels and qrun's own, which is built from the checkout."""
    folder.mkdir()
    for wheel in wheels:
        (folder / wheel.name).symlink_to(wheel)
    pip("wheel", "--no-deps", "--no-index", "--find-links", str(folder), "--wheel-dir", str(folder), str(ROOT))
    return folder


def qrun_wheel(index: Path) -> Path:
    """The wheel of qrun itself in an index."""
    (wheel,) = index.glob(f"qrun_llm-{qrun.__version__}-*.whl")
    return wheel


def newer_wheel(index: Path, folder: Path) -> Path:
    """The wheel of qrun itself once more, as version NEWER."""
    old, name = qrun_wheel(index), f"qrun_llm-{qrun.__version__}"
    target = folder / old.name.replace(name, f"qrun_llm-{NEWER}")
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as copy:
        for member in source.namelist():
            data = source.read(member).replace(name.encode(), f"qrun_llm-{NEWER}".encode())
            if member == "qrun/__init__.py":
                data = data.replace(qrun.__version__.encode(), NEWER.encode())
            if member.endswith(".dist-info/METADATA"):
                data = data.replace(f"\nVersion: {qrun.__version__}".encode(), f"\nVersion: {NEWER}".encode())
            copy.writestr(member.replace(name, f"qrun_llm-{NEWER}"), data)
    return target


def plant_gpu(index: Path, folder: Path) -> Path:
    """An index whose NVML sees one card: on a machine where qrun comes from it, there is a GPU and no toolkit."""
    import pynvml

    folder.mkdir()
    for wheel in index.iterdir():
        if not wheel.name.startswith("nvidia_ml_py-"):
            (folder / wheel.name).symlink_to(wheel.resolve())
    info = "nvidia_ml_py-999.dist-info"
    files = {
        "pynvml.py": Path(pynvml.__file__).read_text() + _ONE_CARD,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: nvidia-ml-py\nVersion: 999\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / "nvidia_ml_py-999-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return folder


def install_uv(index: Path, folder: Path) -> Path:
    """The uv command, installed from an index into a folder."""
    pip("install", "--no-index", "--find-links", str(index), "--target", str(folder), "uv")
    return folder / "bin" / "uv"


def pip(*arguments: str) -> None:
    """Run the tests' own pip, with the settings of who runs them."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"pip {' '.join(arguments)}: {done.stderr[-2000:]}"


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
