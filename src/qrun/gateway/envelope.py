"""OpenAI's error envelope: what is refused, and what the engine refuses, in one shape.

Pure. The engine's `type` and numbers are kept; `code` and `param` are filled in, and a status that blames the server
for the client's mistake is put right (docs/http-api.md, Errors).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

__all__ = ["ApiError", "refused_by_engine"]

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    502: "server_error",
    503: "unavailable_error",
}


@dataclass(eq=False)  # an exception must stay hashable and take its traceback
class ApiError(Exception):
    """A request that is refused. `extra` stands beside the four fields, `headers` go with the answer."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    type: str | None = None  # None: that of the status
    extra: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The status and the sentence."""
        return f"{self.status}: {self.message}"

    def as_json(self) -> bytes:
        """The envelope."""
        error = {
            "message": self.message,
            "type": self.type or _TYPES.get(self.status, "invalid_request_error"),
            "code": self.code,
            "param": self.param,
        }
        return json.dumps({"error": {**error, **self.extra}}).encode()

    def as_event(self) -> bytes:
        """The envelope as the last event of a stream; clients of every route know it by its `error`."""
        return b"event: error\ndata: " + self.as_json() + b"\n\n"


# llama-server throws plain exceptions for these and so says 500, though the fault is the client's. Its other messages
# of 500 (a decode that failed, a slot that could not be saved) are its own fault.
_CLIENTS_FAULT = re.compile(
    r"\[json\.exception\.|Failed to parse|Failed to load image|Failed to tokenize|Invalid |Unsupported |Unknown |"
    r"Cannot |Error: |Only |Multimodal data|[\"'][\w. ]+[\"'] (?:is required|must|elements|:)|"
    r".*(?:input is not supported|is too large to process|requires? --jinja|failed to parse grammar)"
)
_NAMED = re.compile(r"Field '([\w.]+)'|^[\"']([\w.]+)[\"']|key '([\w.]+)' not found")
_NO_PROJECTOR = re.compile(r"(\w+) input is not supported")
_NUMBERS = ("n_prompt_tokens", "n_ctx")
_UNKNOWN_SENTENCE = "The engine refused the request without saying why."
_SENTENCES = {
    "embeddings": "This model is served for generating text, not for embeddings. "
    "Serve an embedding model with `-- --embeddings` for that.",
    "reranking": "This model is served for generating text, not for reranking. "
    "Serve a reranking model with `-- --reranking` for that.",
}


def refused_by_engine(status: int, body: bytes, *, prompt_param: str | None = None) -> ApiError:
    """The engine's refusal as ours. `prompt_param` is what the prompt is called on that route."""
    said = _error_of(body)
    if said is None:
        return ApiError(502, _UNKNOWN_SENTENCE, "engine_error")
    message = str(said.get("message") or _UNKNOWN_SENTENCE)
    kind = str(said.get("type") or "")
    if kind == "exceed_context_size_error":
        numbers = {name: said[name] for name in _NUMBERS if name in said}
        return ApiError(400, _too_long(message, numbers), "context_length_exceeded", prompt_param, kind, numbers)
    if status == HTTPStatus.NOT_IMPLEMENTED:
        return ApiError(400, _unsupported(message), "not_supported", None, kind or None)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and _CLIENTS_FAULT.match(message):
        return _clients_fault(message, prompt_param)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return ApiError(503, message, "loading", None, kind or None, headers={"Retry-After": "5"})
    code = "engine_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request"
    return ApiError(status, message, code, _param_in(message), kind or None)


def _error_of(body: bytes) -> Mapping[str, object] | None:
    try:
        said = json.loads(body)
    except ValueError:
        return None
    error = said.get("error") if isinstance(said, dict) else None
    return error if isinstance(error, dict) else None


def _too_long(message: str, numbers: Mapping[str, object]) -> str:
    if len(numbers) < len(_NUMBERS):
        return message
    return (
        f"The prompt has {numbers['n_prompt_tokens']} tokens, and the context of this server is {numbers['n_ctx']} "
        "tokens. Shorten the prompt, or serve the model with a longer --ctx."
    )


def _unsupported(message: str) -> str:
    return next((sentence for word, sentence in _SENTENCES.items() if word in message), message)


def _clients_fault(message: str, prompt_param: str | None) -> ApiError:
    missing = _NO_PROJECTOR.match(message)
    if missing:
        sentence = f"This model is served without a projector for {missing[1]} input: it takes text only."
        return ApiError(400, sentence, "not_supported", prompt_param)
    return ApiError(400, message, "invalid_request", _param_in(message))


def _param_in(message: str) -> str | None:
    named = _NAMED.search(message)
    return next(filter(None, named.groups()), None) if named else None
