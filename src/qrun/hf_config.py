"""The numbers of a Hugging Face config.json, checked as they are read.

Pure. A vision model's language part (`text_config` and the like) is laid over the rest, as llama.cpp's converter does.
"""

from collections.abc import Mapping

from qrun.shape import ShapeUnknown

__all__ = ["HfConfig"]

_MAX_NUMBER = 2**31 - 1
_PARTS = ("text_config", "language_config", "llm_config")


class HfConfig:
    """A config whose values come checked: whole numbers of a sensible size, or ShapeUnknown."""

    def __init__(self, config: Mapping[str, object]) -> None:
        self._values = dict(config)
        for name in _PARTS:
            part = config.get(name)
            if isinstance(part, Mapping):
                self._values |= {str(key): value for key, value in part.items()}
        self.model_type = str(self._values.get("model_type", ""))

    def get(self, key: str) -> object:
        """The value as it stands, None where it is missing."""
        return self._values.get(key)

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
