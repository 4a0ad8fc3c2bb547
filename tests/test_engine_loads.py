"""What an installed engine loads is asked of it, once; what it cannot load is never chosen."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from candidates import LLAMA_3_8B, candidate_of, rows
from qrun.config import read_config
from qrun.engine_loads import Loads, loads_of
from qrun.engine_models import known_architectures, known_tensor_types
from qrun.engines import engine_states, find_engine
from qrun.hardware import Cpu, Hardware
from qrun.request import Request
from qrun.resolve import resolve
from qrun.runner import Engine, Inventory
from qrun.source import FoundModel
from qrun.units import GIB
from qrun_llamacpp import LlamaCppRunner

MACHINE = Hardware("test", "linux", Cpu("a CPU", "x86_64"), 32 * GIB)
# Of models that people run; every build that serves knows them.
USUAL = {"llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "phi3", "gpt-oss", "deepseek2", "falcon-h1", "lfm2"}


class Told:
    """A runner whose engine answers with these lines, and counts how often it is asked."""

    name = "told"

    def __init__(self, folder: Path, script: str) -> None:
        self.library = folder / "library.so"
        self.library.write_text("one state")
        self.asked = folder / "asked"
        (folder / "ask.py").write_text(f"open({str(self.asked)!r}, 'a').write('x')\n{script}")
        self._argv = (sys.executable, "-I", "-S", str(folder / "ask.py"))

    def inventory(self, _engine):
        """The script."""
        return Inventory(self._argv, self.library)

    @property
    def times(self) -> int:
        """How often it ran."""
        return len(self.asked.read_text()) if self.asked.exists() else 0


ENGINE = Engine("told", "native", "1", Path("/engine"), "test")
SAYS = 'print(\'{"architectures": ["llama"]}\')\nprint(\'{"tensor_types": [2, 39]}\')'


@pytest.fixture
def config(tmp_path):
    """A qrun with folders of its own."""
    return read_config({f"QRUN_{name}_DIR": str(tmp_path / name.lower()) for name in ("DATA", "CACHE", "STATE")})


def test_an_engine_is_asked_once_for_each_state_of_its_library(tmp_path, config):
    """A decision costs no process; another build is asked anew."""
    runner = Told(tmp_path, SAYS)
    first = loads_of(runner, ENGINE, config)
    again = loads_of(runner, ENGINE, config)
    asked_before = runner.times
    runner.library.write_text("another state")
    loads_of(runner, ENGINE, config)

    assert first == again == Loads(frozenset({"llama"}), frozenset({"Q4_0", "MXFP4"}))
    assert (asked_before, runner.times) == (1, 2)


@pytest.mark.parametrize(
    ("script", "loads"),
    [
        ('print(\'{"architectures": ["llama"]}\', flush=True)\nimport os; os.abort()', Loads(frozenset({"llama"}))),
        ("raise SystemExit(1)", Loads()),
        ('print(\'{"architectures": ["ll\')', Loads()),
        ("print('{\"architectures\": []}')", Loads()),
    ],
    ids=["dies on the way", "fails", "half a line", "empty list"],
)
def test_an_engine_that_does_not_tell_is_believed_to_tell_nothing(tmp_path, config, script, loads):
    """What was said before it died counts; nothing is made of the rest."""
    assert loads_of(Told(tmp_path, script), ENGINE, config) == loads


def test_a_runner_that_cannot_ask_and_a_library_that_is_gone_tell_nothing(tmp_path, config):
    """No process is started."""
    runner = Told(tmp_path, SAYS)
    silent = Told(tmp_path, SAYS)
    silent.inventory = lambda _engine: None
    said = [loads_of(silent, ENGINE, config)]
    runner.library.unlink()
    said.append(loads_of(runner, ENGINE, config))

    assert said == [Loads(), Loads()]
    assert runner.times == 0


def test_a_damaged_answer_is_asked_again(tmp_path, config):
    """Half a file in the cache is as none."""
    runner = Told(tmp_path, SAYS)
    before = loads_of(runner, ENGINE, config)
    (kept,) = (config.cache_dir / "engine-loads").iterdir()
    kept.write_text(kept.read_text()[:10])

    assert loads_of(runner, ENGINE, config) == before
    assert json.loads(kept.read_text())["architectures"] == ["llama"]


@pytest.mark.engine
@pytest.mark.parametrize("data", ["engine_config", "native_config"])
def test_a_real_engine_names_its_architectures_and_types(request, data, tmp_path):
    """From its own library: the usual ones, no name that it invents, and no type that it has removed."""
    installed = request.getfixturevalue(data)
    request.getfixturevalue({"engine_config": "ready_python", "native_config": "native_server"}[data])
    config = replace(installed, cache_dir=tmp_path / "cache")

    loads = loads_of(LlamaCppRunner(), find_engine(config, "llamacpp"), config)

    assert loads.architectures >= USUAL
    assert len(loads.architectures) > 140
    assert not loads.architectures & {"clip", "(unknown)", "unknown", ""}
    assert loads.tensor_types >= {"F16", "Q4_K", "IQ4_XS", "MXFP4"}
    assert not loads.tensor_types & {"IQ4_K", "IQ5_K", "Q4_0_4_4", "I2_S", "Q4_2"}


@pytest.mark.engine
def test_the_data_for_engines_that_are_not_installed_holds_for_those_that_are(native_config, native_server):
    """The pinned version's list, and the library of that version, say the same of every name in the list."""
    loads = loads_of(LlamaCppRunner(), find_engine(native_config, "llamacpp"), native_config)

    assert known_architectures("llamacpp") <= loads.architectures
    assert known_tensor_types("llamacpp") == loads.tensor_types


@pytest.mark.engine
def test_what_the_installed_engine_does_not_know_is_refused_before_a_download(engine_config, ready_python):
    """A model of tomorrow: no engine is started to find out."""
    states = engine_states(engine_config, MACHINE)
    known = candidate_of(next(row for row in rows() if row["model"] == LLAMA_3_8B and row["quant"] == "Q4_K_M"))
    unknown = replace(known, shape=replace(known.shape, architecture="llama9"), repo_id="tomorrow/llama9")

    resolution = resolve(Request(LLAMA_3_8B), FoundModel(LLAMA_3_8B, (known, unknown)), MACHINE, states)

    assert resolution.chosen.candidate is known
    (refused,) = resolution.rejected
    assert (refused.reason, refused.detail) == ("architecture_unsupported", "llamacpp does not load llama9")
