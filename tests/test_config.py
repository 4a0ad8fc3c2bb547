"""Settings come from the environment in one place."""

from pathlib import Path

import pytest

from qrun.config import read_config
from qrun.errors import UsageError


def test_folders_can_be_moved_by_the_environment():
    """QRUN_DATA_DIR, QRUN_CACHE_DIR and QRUN_STATE_DIR move what qrun keeps."""
    config = read_config({"QRUN_DATA_DIR": "/d", "QRUN_CACHE_DIR": "/c", "QRUN_STATE_DIR": "/s"})

    assert (config.data_dir, config.cache_dir, config.state_dir) == (Path("/d"), Path("/c"), Path("/s"))
    assert config.engine_dir("llamacpp") == Path("/d/engines/llamacpp")


def test_without_settings_the_platform_s_folders_are_used():
    """The conventions of the platform hold where nothing is set, and no models folder is invented."""
    config = read_config({})

    assert config.data_dir.name == "qrun"
    assert config.models_dir is None
    assert config.llama_server is None


def test_an_empty_variable_counts_as_unset():
    """QRUN_MODELS_DIR= in a shell means no models folder, not the current one."""
    config = read_config({"QRUN_MODELS_DIR": "", "QRUN_LLAMA_SERVER": "", "QRUN_DATA_DIR": ""})

    assert config.models_dir is None
    assert config.llama_server is None
    assert config.data_dir.name == "qrun"


@pytest.mark.parametrize(
    ("environ", "cache_dir"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_the_hub_s_cache_is_where_huggingface_hub_has_it(environ, cache_dir):
    """HF_HUB_CACHE comes before HF_HOME, and that before the cache folder of the platform."""
    assert read_config(environ).hub.cache_dir == Path(cache_dir)


def test_the_hub_s_token_is_read_and_never_printed():
    """HF_TOKEN is taken without its line's end, and no repr of the settings shows it."""
    config = read_config({"HF_TOKEN": " hf_secret\n", "HF_ENDPOINT": "http://mirror/"})

    assert config.hub.token == "hf_secret"  # made up
    assert config.hub.endpoint == "http://mirror"
    assert "hf_secret" not in repr(config)
    assert "HF_TOKEN" not in config.environ


@pytest.mark.parametrize("secret", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "QRUN_API_KEY"])
def test_no_child_is_handed_a_secret(secret):
    """Engines get the environment without it."""
    assert read_config({secret: "hf_secret", "LANG": "C"}).environ == {"LANG": "C"}


def test_no_token_goes_along_unasked_where_the_user_forbids_it():
    """Neither the login's nor the environment's: so does huggingface_hub."""
    hub = read_config({"HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}).hub

    assert (hub.token, hub.implicit_token) == (None, False)


def test_variables_in_the_hub_s_folders_are_replaced(monkeypatch):
    """A service's settings are read by no shell; huggingface_hub replaces `$NAME` in them itself."""
    monkeypatch.setenv("DISK", "/disk")
    hub = read_config({"HF_HOME": "$DISK/hf"}).hub

    assert (hub.cache_dir, hub.token_path) == (Path("/disk/hf/hub"), Path("/disk/hf/token"))


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_is_what_huggingface_hub_takes_for_it(variable):
    """Both variables count, by the words that huggingface_hub takes for true."""
    assert read_config({variable: "true"}).hub.offline
    assert not read_config({variable: "0"}).hub.offline


def test_a_retry_time_that_is_no_number_is_refused_by_name():
    """A wrong setting is said in one line that names the variable."""
    with pytest.raises(UsageError, match="QRUN_HUB_RETRY_S must be a number"):
        read_config({"QRUN_HUB_RETRY_S": "soon"})


def test_other_tools_models_are_looked_for_where_they_keep_them():
    """Each tool's own variable moves its folder; without one it is the tool's default."""
    moved = read_config({"OLLAMA_MODELS": "/a", "LLAMA_CACHE": "/b", "XDG_CACHE_HOME": "/c"}).places
    default = read_config({}).places

    assert (moved.ollama, moved.llamacpp) == ((Path("/a"),), (Path("/b"),))
    assert default.ollama[0] == Path.home() / ".ollama" / "models"
    assert Path.home() / ".lmstudio" in default.lmstudio
    assert default.llamacpp[0].name == "llama.cpp"


@pytest.mark.parametrize(("value", "off"), [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False)])
def test_every_word_of_huggingface_hub_for_true_counts(value, off):
    """HF_HUB_OFFLINE=1, true, yes or on, in any case."""
    assert read_config({"HF_HUB_OFFLINE": value}).hub.offline is off


def test_the_endpoint_is_the_environment_s_or_the_public_one():
    """HF_ENDPOINT as huggingface_hub reads it, without a slash at its end; empty is unset."""
    assert read_config({"HF_ENDPOINT": "http://127.0.0.1:8000/"}).hub.endpoint == "http://127.0.0.1:8000"
    assert read_config({"HF_ENDPOINT": ""}).hub.endpoint == read_config({}).hub.endpoint == "https://huggingface.co"
