"""What the engine is asked in place of what the client asked.

Pure. The client's bytes go on wherever they can. They are written anew for an answer in one piece, which the engine is
asked to stream, and for a `tool_choice` that names a function, which the engine would pass over. Where it can be, one
key is added: with `return_progress` the engine looks up after every batch of the prompt, and so sees that a client has
left; without it, it may read a long prompt to its end while others keep it busy. `relay` takes that progress out again.
"""

import json
from dataclasses import dataclass

from qrun.gateway.assemble import ASSEMBLERS
from qrun.gateway.envelope import ApiError
from qrun.gateway.params import Body, Kind

__all__ = ["Prepared", "prepare", "with_named_tool"]

# The engine's streams lack what these ask for, or refuse it, so its own answer in one piece is taken.
_ONLY_WHOLE = ("logprobs", "top_logprobs", "n_probs", "verbose", "response_fields")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A body for the engine. `streams`: the client gets a stream; `assembles`: only the engine streams.

    `has_progress`: the progress in the engine's stream is ours, not the client's.
    """

    raw: bytes
    streams: bool
    assembles: bool
    has_progress: bool


def prepare(kind: Kind, raw: bytes, body: Body) -> Prepared:
    """Raises ApiError 400 for a tool that is not there."""
    asked = with_named_tool(body) if kind == "chat" else body
    streams = bool(body.get("stream"))
    assembles = kind in ASSEMBLERS and not streams and not _is_only_whole(kind, body)
    if assembles:
        options = body.get("stream_options") or {}
        asked = {**asked, "stream": True, "stream_options": {**options, "include_usage": True}}
    has_progress = (streams or assembles) and _can_have_progress(kind, body, assembles=assembles)
    sent = raw if asked is body else json.dumps(asked).encode()
    return Prepared(_with_progress(sent) if has_progress else sent, streams, assembles, has_progress)


def _can_have_progress(kind: Kind, body: Body, *, assembles: bool) -> bool:
    """Not where it would stand in the middle of a stream (several prompts), or take the place of an event."""
    if not body or "return_progress" in body or kind not in ASSEMBLERS or (kind == "responses" and not assembles):
        return False
    return not isinstance(body.get("prompt"), list) and max(_n(body, "n"), _n(body, "n_cmpl")) == 1


def _with_progress(raw: bytes) -> bytes:
    """One more key at the end of an object that has some; the rest stays as the client wrote it."""
    return raw.rstrip()[:-1] + b', "return_progress": true}'


def _is_only_whole(kind: Kind, body: Body) -> bool:
    if any(body.get(name) for name in _ONLY_WHOLE):
        return True
    return kind == "native" and (isinstance(body.get("prompt"), list) or max(_n(body, "n"), _n(body, "n_cmpl")) > 1)


def _n(body: Body, name: str) -> int:
    value = body.get(name)
    return value if isinstance(value, int) else 1


def with_named_tool(body: Body) -> Body:
    """A choice that names a function is a choice of one that is required."""
    choice = body.get("tool_choice")
    if not isinstance(choice, dict):
        return body
    name = choice["function"]["name"]
    named = [tool for tool in body.get("tools") or () if tool["function"]["name"] == name]
    if not named:
        raise ApiError(400, f"tool_choice names {name!r}, which is not among tools.", "invalid_value", "tool_choice")
    return {**body, "tools": named, "tool_choice": "required"}
