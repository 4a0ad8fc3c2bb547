"""The numbers of a Hugging Face config.json, checked as they are read.

Pure. A vision model's language part (`text_config` and the like) is laid over the rest, as llama.cpp's converter does.
"""

from collections.abc import Mapping

from qrun.shape import ShapeUnknown

__all__ = ["HfConfig", "Keys"]

# GGUF metadata without the architecture's prefix: one number, or one a layer.
Keys = dict[str, int | tuple[int, ...]]

_MAX_NUMBER = 2**31 - 1
_MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
_PARTS = ("text_config", "language_config", "llm_config", "thinker_config")


class HfConfig:
    """A config whose values come checked: whole numbers of a sensible size, or ShapeUnknown."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._values: dict[str, object] = dict(config)
        for name in (*_PARTS, "text_config"):  # a thinker_config has a text_config of its own
            part = self._values.get(name)
            if isinstance(part, Mapping):
                self._values |= {str(key): value for key, value in part.items()}
        self.model_type = str(self._values.get("model_type", ""))

    @property
    def n_layer(self) -> int:
        """The layers that generate."""
        n_layer = self.number("num_hidden_layers", "n_layer", "num_layers")
        if not 0 < n_layer <= _MAX_LAYERS:
            raise ShapeUnknown(f"it has {n_layer} layers")
        return n_layer

    def get(self, key: str, default: object = None) -> object:
        """The value as it stands, `default` where it is missing."""
        return self._values.get(key, default)

    def number(self, *names: str, default: int | None = None) -> int:
        """The number under the first of `names` that has one (null counts as missing).

        Raises ShapeUnknown where none has and there is no default.
        """
        for name in names:
            value = self._values.get(name)
            if value is not None:
                return _number(name, value)
        if default is None:
            raise ShapeUnknown(f"its config.json has no {names[0]}")
        return default

    def numbers(self, name: str, *, default: int) -> int | tuple[int, ...]:
        """One number, or one a layer."""
        value = self._values.get(name)
        if not isinstance(value, list | tuple):
            return self.number(name, default=default)
        if len(value) != self.n_layer:
            raise ShapeUnknown(f"its config.json has {len(value)} items of {name} for {self.n_layer} layers")
        return tuple(_number(name, item) for item in value)

    def index_list(self, name: str) -> tuple[int, ...]:
        """A list of numbers, of whatever length."""
        value = self._values.get(name)
        return tuple(_number(name, item) for item in value) if isinstance(value, list | tuple) else ()

    def real(self, name: str, *, default: float) -> float:
        """A factor."""
        value = self._values.get(name)
        return float(value) if isinstance(value, int | float) else default

    def flag(self, *names: str, default: bool) -> bool:
        """Whether the first of `names` that is there is true."""
        return next((self._values[name] is True for name in names if self._values.get(name) is not None), default)

    def words(self, name: str) -> tuple[str, ...]:
        """A list of words, empty where it is missing."""
        value = self._values.get(name)
        return tuple(str(item) for item in value) if isinstance(value, list | tuple) else ()


def _number(name: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise ShapeUnknown(f"its config.json says {name} is {value!r:.40}")
    return value
