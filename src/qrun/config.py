"""Settings and where each came from. The only module that reads the process environment; nothing writes it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Config", "read_config"]


@dataclass(frozen=True, slots=True)
class Config:
    """What the environment sets. Folders follow the platform's conventions unless QRUN_*_DIR moves them."""

    data_dir: Path  # engines' environments
    cache_dir: Path  # built wheels, what can be made again
    state_dir: Path  # logs
    models_dir: Path | None
    llama_server: str | None
    path: str
    environ: Mapping[str, str]  # handed to children: without our API key
    api_key: str | None = None

    def engine_dir(self, runner: str) -> Path:
        """The folder of one runner's engine environments."""
        return self.data_dir / "engines" / runner


def read_config(environ: Mapping[str, str] | None = None) -> Config:
    """The settings of this process, or of a given environment."""
    env = dict(os.environ if environ is None else environ)
    models_dir = env.get("QRUN_MODELS_DIR")
    return Config(
        data_dir=_folder(env, "QRUN_DATA_DIR", "user_data_path"),
        cache_dir=_folder(env, "QRUN_CACHE_DIR", "user_cache_path"),
        state_dir=_folder(env, "QRUN_STATE_DIR", "user_state_path"),
        models_dir=Path(models_dir).expanduser() if models_dir else None,
        llama_server=env.get("QRUN_LLAMA_SERVER") or None,
        path=env.get("PATH", ""),
        environ={name: value for name, value in env.items() if name != "QRUN_API_KEY"},
        api_key=env.get("QRUN_API_KEY") or None,
    )


def _folder(env: Mapping[str, str], variable: str, convention: str) -> Path:
    if env.get(variable):
        return Path(env[variable]).expanduser()
    import platformdirs

    folder: Path = getattr(platformdirs, convention)("qrun", appauthor=False)
    return folder
