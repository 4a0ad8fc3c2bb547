"""Images and sounds in a prompt: only what the request itself carries.

Pure. The engine would fetch any address it is given, from inside this network; so addresses stop here.
"""

import re
from collections.abc import Iterator
from typing import Any

from qrun.gateway.envelope import ApiError

__all__ = ["refuse_remote_media"]

_ADDRESS_KEYS = frozenset({"url", "image_url", "audio_url", "video_url", "file_url"})
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]*):", re.IGNORECASE)


def refuse_remote_media(prompt: object, param: str) -> None:
    """Raise ApiError 400 if a part of the prompt names an address that is not `data:`."""
    for address in _addresses(prompt):
        scheme = _SCHEME.match(address)
        if scheme and scheme[1].lower() != "data":
            raise ApiError(
                400,
                f"Addresses are not fetched ({scheme[1]}:). Send the content itself, as a data: address.",
                "remote_media",
                param,
            )


def _addresses(part: Any) -> Iterator[str]:
    """Every address below `part`; an own stack, since clients choose the depth."""
    pending = [part]
    while pending:
        current = pending.pop()
        if isinstance(current, list):
            pending.extend(current)
        elif isinstance(current, dict):
            for key, value in current.items():
                if key in _ADDRESS_KEYS and isinstance(value, str):
                    yield value
                elif isinstance(value, dict | list):
                    pending.append(value)
