"""A fresh choice has the engine's own figures, asked on headers alone; a kept one is not asked about again."""

from contextlib import closing
from dataclasses import replace

import pytest

from hub_emulator import HubEmulator
from qrun.config import read_config
from qrun.here import resolve_here
from qrun.request import Request

pytestmark = pytest.mark.engine

MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture
def hub(demo_models):
    """The demo's files on a Hub."""
    with HubEmulator() as hub:
        hub.add_repo(f"HuggingFaceTB/{MODEL}", {"README.md": b"#"}, downloads=1000)
        hub.add_folder(demo_models)
        yield hub


@pytest.fixture(params=["engine_config", "native_config"])
def config(request, hub, tmp_path):
    """The settings of a user with one of the two engines and an empty cache."""
    if request.param == "native_config":
        request.getfixturevalue("native_server")  # skips where there is none
    engines = request.getfixturevalue(request.param)
    environ = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "PATH": engines.path}
    folders = {f"QRUN_{name}_DIR": str(tmp_path / name.lower()) for name in ("DATA", "CACHE", "STATE")}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "engines").symlink_to(engines.data_dir / "engines")
    return read_config(environ | folders)


def test_before_a_download_the_engine_has_the_last_word_on_memory(config, hub):
    """The figures are the engine's, near to ours; no weights were fetched, and the kept decision asks nobody."""
    request = replace(Request(MODEL), n_ctx=2048)
    with closing(resolve_here(request, config=config)) as here:
        fresh = here.resolution.require()
    fetched = sum(seen.sent_bytes for seen in hub.requests if seen.host == "files")
    hub.requests.clear()
    with closing(resolve_here(request, config=config)) as here:
        kept = here.resolution.require()

    assert fresh.memory.source == "engine"
    assert fetched < fresh.candidate.size_bytes / 2
    assert kept.memory.source == "header"
    assert kept.memory.total_bytes == pytest.approx(fresh.memory.total_bytes, rel=0.05)
    assert hub.requests == []


def test_a_glance_asks_no_engine(config):
    """What is only looked at is judged by our own figures."""
    with closing(resolve_here(Request(MODEL), config=config, glance=True)) as here:
        assert here.resolution.require().memory.source == "formula"
