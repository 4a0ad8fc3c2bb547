"""The engine asked before a download: a real one on headers of real dimensions, and scripts in its place that fail."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from candidates import LLAMACPP, cpu_only
from config_gguf import CONFIGS, write_config
from qrun.dry_run import asked, header_files, hub_reader, plan_of
from qrun.engine_memory import choice_confirmed
from qrun.hub_client import HubClient
from qrun.hub_settings import HubSettings
from qrun.model import Candidate, ModelFile
from qrun.request import Request
from qrun.resolve import resolve
from qrun.runner import Engine, Launch, PlaceMemory, ServePlan, UnixAddress
from qrun.shape import shape_of
from qrun.source import FoundModel
from qrun.units import MIB
from qrun_llamacpp import LlamaCppRunner
from test_gguf_header import header_of_file


def choice_of(path: Path, hardware):
    """The choice of that file alone."""
    shape, weights = shape_of([header_of_file(path)])
    files = (ModelFile(str(path), path.stat().st_size),)
    candidate = Candidate(None, None, None, "m", files, "gguf", "Q4_K_M", shape, weights)
    request = Request("m", n_ctx=4096, n_parallel=1, kv_type="f16")
    return resolve(request, FoundModel("m", (candidate,)), hardware, (LLAMACPP,))


def read(file: ModelFile, start: int, n: int) -> bytes:
    """The bytes of a file on this disk."""
    with Path(file.path).open("rb") as opened:
        opened.seek(start)
        return opened.read(n)


@pytest.fixture
def small_model(tmp_path) -> Path:
    """The header of a small model, and a hole."""
    return write_config(tmp_path / "Model-Q4_K_M.gguf", CONFIGS["qwen3-0.6b"])


class Scripted:
    """A runner whose engine is a script of this Python."""

    def __init__(self, script: str) -> None:
        self._script = script

    def dry_run(self, _engine: Engine, plan: ServePlan) -> Launch:
        """The script, given the model's path."""
        return Launch((sys.executable, "-c", self._script, str(plan.model_path)), UnixAddress(Path("unused")))

    def memory_told(self, log_text: str) -> tuple[PlaceMemory, ...]:
        """One place, once the log has a whole line `told BYTES`."""
        lines = [line for line in log_text.splitlines(keepends=True) if line.startswith("told ")]
        return (PlaceMemory(None, int(lines[0].split()[1]), 0, 0),) if lines and lines[0].endswith("\n") else ()

    def refuses_model(self, log_text: str) -> str | None:
        """What stands behind `refused:`."""
        return log_text.partition("refused: ")[2].strip() or None


ENGINE = Engine("scripted", "native", None, Path(sys.executable), "test")


def word_of(script: str, path: Path, limit_s: float = 30):
    """What the scripted engine says of the choice of that file."""
    resolution = choice_of(path, cpu_only(64))
    return asked(
        resolution.chosen,
        plan_of(resolution.chosen),
        Scripted(script),
        ENGINE,
        resolution.hardware,
        read=read,
        environ=os.environ,
        limit_s=limit_s,
    )


@pytest.mark.engine
@pytest.mark.parametrize("name", ["qwen3-0.6b", "gpt-oss-20b", "granite-4.0-h-tiny", "deepseek-v2-lite"])
@pytest.mark.parametrize("flavour", ["native", "ready"])
def test_the_engine_tells_its_memory_from_a_header_alone(name, flavour, request, tmp_path):
    """Within 2 % of the formula; the choice stands with the engine's own figures. Nothing is left behind.

    A tied table that the engine repacks for this CPU is held twice: that depends on types and CPU, and it alone knows.
    """
    executable = request.getfixturevalue("native_server" if flavour == "native" else "ready_python")
    before = choice_of(write_config(tmp_path / "m.gguf", CONFIGS[name]), cpu_only(64))
    private = tmp_path / "private"
    private.mkdir()
    word = asked(
        before.chosen,
        plan_of(before.chosen),
        LlamaCppRunner(),
        Engine("llamacpp", flavour, None, executable, "test"),
        before.hardware,
        read=read,
        environ={**os.environ, "XDG_RUNTIME_DIR": str(private)},
    )
    after = choice_confirmed(before, word)

    assert word.silence is None
    assert after.chosen.memory.source == "engine"
    weights, expected = before.chosen.candidate.weights, before.chosen.memory.total_bytes
    repacked = weights.token_embd_bytes if weights.tied else 0
    assert 0.98 * expected <= after.chosen.memory.total_bytes <= 1.02 * expected + repacked
    assert list(private.iterdir()) == []


@pytest.mark.engine
def test_an_architecture_that_the_engine_lacks_is_refused(native_server, small_model):
    """By the engine's own words, from its log."""
    renamed = small_model.read_bytes()[: 4 * MIB].replace(b"qwen3", b"qwen9")
    with small_model.open("r+b") as file:
        file.write(renamed)
    resolution = choice_of(small_model, cpu_only(64))
    engine = Engine("llamacpp", "native", None, native_server, "test")
    word = asked(
        *(resolution.chosen, plan_of(resolution.chosen), LlamaCppRunner(), engine, resolution.hardware),
        read=read,
        environ=os.environ,
    )

    assert word.refusal == "it does not know the architecture 'qwen9'"
    assert choice_confirmed(resolution, word) is None


def test_the_file_that_is_shown_has_the_header_and_the_size_of_the_real_one(small_model, tmp_path):
    """The engine sees the same header; the rest is a hole."""
    size_bytes = small_model.stat().st_size
    folder = tmp_path / "shown"
    folder.mkdir()
    shown = header_files([ModelFile(str(small_model), size_bytes)], folder, read)

    assert shown.stat().st_size == size_bytes
    assert shown.stat().st_blocks * 512 < 2 * MIB
    assert header_of_file(shown) == header_of_file(small_model)


def test_shards_lie_side_by_side_under_their_own_names(small_model, tmp_path):
    """The engine finds the others by the first one's name."""
    others = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in others:
        path.write_bytes(small_model.read_bytes()[: 4 * MIB])
        os.truncate(path, small_model.stat().st_size)
    folder = tmp_path / "shown"
    folder.mkdir()
    first = header_files([ModelFile(str(path), path.stat().st_size) for path in others], folder, read)

    assert first.name == "m-00001-of-00002.gguf"
    assert {path.name for path in folder.iterdir()} == {path.name for path in others}


def test_an_engine_is_ended_as_soon_as_it_has_told(small_model):
    """It would go on to load; nobody waits for it."""
    word = word_of("import sys, time; print('told 1000', file=sys.stderr, flush=True); time.sleep(600)", small_model)

    assert word.need.total_bytes == 1000


@pytest.mark.parametrize(
    ("script", "silence"),
    [
        ("", "did not tell"),
        ("import sys; print('told', file=sys.stderr); sys.exit(3)", "did not tell"),
        ("import time; time.sleep(600)", "did not tell"),
    ],
)
def test_an_engine_that_fails_or_hangs_has_said_nothing(script, silence, small_model):
    """The decision stands as it was."""
    word = word_of(script, small_model, limit_s=1.0)

    assert (word.need, word.refusal) == (None, None)
    assert silence in word.silence


def test_a_refusal_is_told_apart_from_silence(small_model):
    """The runner knows its engine's words."""
    assert (
        word_of("import sys; sys.exit('refused: no such architecture')", small_model).refusal == "no such architecture"
    )


def test_an_engine_that_is_not_there_has_said_nothing(small_model):
    """A file that cannot be started."""

    class Missing(Scripted):
        def dry_run(self, _engine: Engine, plan: ServePlan) -> Launch:
            return Launch((str(plan.private_dir / "none"),), UnixAddress(Path("unused")))

    resolution = choice_of(small_model, cpu_only(64))
    word = asked(
        *(resolution.chosen, plan_of(resolution.chosen), Missing(""), ENGINE, resolution.hardware),
        read=read,
        environ=os.environ,
    )

    assert "No such file" in word.silence


def test_the_hub_s_headers_come_through_its_cache(hub, small_model, tmp_path):
    """Read once for the decision, the header costs no further request."""
    content = small_model.read_bytes()[: 8 * MIB]
    commit = hub.add_repo("a/m-GGUF", {"m.gguf": content})
    client = HubClient(HubSettings(tmp_path / "hub", tmp_path / "listings", tmp_path / "token", endpoint=hub.endpoint))
    file = ModelFile("m.gguf", len(content), "0" * 64)
    candidate = Candidate("a/m-GGUF", commit, "a", "m", (file,), "gguf", "Q4_K_M")
    read_hub = hub_reader(client, candidate)
    first = read_hub(file, 0, 100)
    n_requests = len(hub.requests)

    assert first == content[:100] == read_hub(file, 0, 100)
    assert len(hub.requests) == n_requests
    client.close()


def test_a_projector_is_not_looked_for(small_model):
    """It is no file of the candidate's, and is not there yet."""
    resolution = choice_of(small_model, cpu_only(64))
    plan = replace(plan_of(resolution.chosen), mmproj_path=Path("projector.gguf"))
    seen = []

    class Looks(Scripted):
        def dry_run(self, engine: Engine, plan: ServePlan) -> Launch:
            seen.append(plan.mmproj_path)
            return super().dry_run(engine, plan)

    asked(*(resolution.chosen, plan, Looks(""), ENGINE, resolution.hardware), read=read, environ=os.environ)

    assert seen == [None]
