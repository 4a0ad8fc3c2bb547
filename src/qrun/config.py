"""Settings and where each came from. The only module that reads the process environment; nothing writes it."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qrun.errors import UsageError
from qrun.foreign_files import Places
from qrun.hub_settings import DEFAULT_ENDPOINT, DEFAULT_RETRY_S, HubSettings

__all__ = ["Config", "read_config"]


# No engine needs them; the address of a mirror may carry a password.
_SECRETS = frozenset({"QRUN_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"})


@dataclass(frozen=True, slots=True)
class Config:
    """What the environment sets. Folders follow the platform's conventions unless QRUN_*_DIR moves them."""

    data_dir: Path  # engines' environments
    cache_dir: Path  # built wheels, what can be made again
    state_dir: Path  # logs
    models_dir: Path | None
    llama_server: str | None
    path: str
    environ: Mapping[str, str]  # handed to children: without our keys and tokens
    hub: HubSettings
    places: Places = field(default_factory=Places)  # where other tools keep models
    api_key: str | None = None

    def engine_dir(self, runner: str) -> Path:
        """The folder of one runner's engine environments."""
        return self.data_dir / "engines" / runner

    @property
    def pins_dir(self) -> Path:
        """The folder of the decisions that are kept."""
        return self.data_dir / "pins"

    @property
    def ledger_dir(self) -> Path:
        """The folder of the record of what qrun has stored in the Hub's cache."""
        return self.data_dir / "stored"


def read_config(environ: Mapping[str, str] | None = None) -> Config:
    """The settings of this process, or of a given environment."""
    env = dict(os.environ if environ is None else environ)
    models_dir = env.get("QRUN_MODELS_DIR")
    cache_dir = _folder(env, "QRUN_CACHE_DIR", "user_cache_path")
    return Config(
        data_dir=_folder(env, "QRUN_DATA_DIR", "user_data_path"),
        cache_dir=cache_dir,
        state_dir=_folder(env, "QRUN_STATE_DIR", "user_state_path"),
        models_dir=Path(models_dir).expanduser() if models_dir else None,
        llama_server=env.get("QRUN_LLAMA_SERVER") or None,
        path=env.get("PATH", ""),
        environ={name: value for name, value in env.items() if name not in _SECRETS},
        hub=_hub(env, cache_dir),
        places=_places(env),
        api_key=env.get("QRUN_API_KEY") or None,
    )


def _hub(env: Mapping[str, str], cache_dir: Path) -> HubSettings:
    """The Hub's variables with the meaning that huggingface_hub gives them (its constants.py and utils/_auth.py)."""
    base = Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    home = Path(env.get("HF_HOME") or base)
    implicit = not _is_on(env, "HF_HUB_DISABLE_IMPLICIT_TOKEN")  # also of the token in the environment
    token = (env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN") or "") if implicit else ""
    return HubSettings(
        cache_dir=_expanded(env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or home / "hub"),
        listings_dir=cache_dir / "hub",
        token_path=_expanded(env.get("HF_TOKEN_PATH") or home / "token"),
        endpoint=(env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
        token="".join(token.split()) or None,
        implicit_token=implicit,
        offline=_is_on(env, "HF_HUB_OFFLINE") or _is_on(env, "TRANSFORMERS_OFFLINE"),
        retry_s=_seconds(env, "QRUN_HUB_RETRY_S", DEFAULT_RETRY_S),
        xet=_is_on(env, "QRUN_XET"),
    )


def _expanded(path: str | Path) -> Path:
    """A path with `~` and `$NAME` replaced, as huggingface_hub does: a service's settings are read by no shell."""
    return Path(os.path.expandvars(os.path.expanduser(path)))  # noqa: PTH111  # before the variables


def _places(env: Mapping[str, str]) -> Places:
    """Where Ollama (envconfig/config.go), LM Studio and llama.cpp (common/common.cpp) keep their models."""
    named = env.get("OLLAMA_MODELS")
    # On Linux its service runs as a user of its own, whose home this is.
    homes = ("~/.ollama", "/usr/share/ollama/.ollama")
    ollama = [Path(named)] if named else [Path(home) / "models" for home in homes]
    return Places(
        ollama=tuple(folder.expanduser() for folder in ollama),
        lmstudio=tuple(Path(home).expanduser() for home in ("~/.lmstudio", "~/.cache/lm-studio")),
        llamacpp=(_llamacpp_cache(env).expanduser(),),
    )


def _llamacpp_cache(env: Mapping[str, str]) -> Path:
    if named := env.get("LLAMA_CACHE"):
        return Path(named)
    caches = {"darwin": "~/Library/Caches", "win32": env.get("LOCALAPPDATA") or "~/AppData/Local"}
    return Path(caches.get(sys.platform) or env.get("XDG_CACHE_HOME") or "~/.cache") / "llama.cpp"


def _is_on(env: Mapping[str, str], variable: str) -> bool:
    return env.get(variable, "").upper() in ("1", "ON", "YES", "TRUE")


def _seconds(env: Mapping[str, str], variable: str, default: float) -> float:
    text = env.get(variable, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{variable} must be a number of seconds, 0 or more, not {text!r}.")
    return value


def _folder(env: Mapping[str, str], variable: str, convention: str) -> Path:
    if env.get(variable):
        return Path(env[variable]).expanduser()
    import platformdirs

    folder: Path = getattr(platformdirs, convention)("qrun", appauthor=False)
    return folder
