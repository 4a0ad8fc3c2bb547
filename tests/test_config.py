"""Settings come from the environment in one place."""

from pathlib import Path

from qrun.config import read_config


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
