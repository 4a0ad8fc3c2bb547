"""What may stand in a request's body: each known parameter is honoured, harmless, or refused here with 400.

Pure. Unknown keys pass: the engine has many of its own. Null counts as absent, as in OpenAI's API. Documented in
docs/http-api.md, which a test holds to this table.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from qrun.gateway.envelope import ApiError
from qrun.gateway.media import refuse_remote_media

__all__ = ["PROMPT_PARAM", "Body", "Kind", "check_body", "read_body"]

Kind = Literal["chat", "completions", "responses", "messages", "native", "other"]
Body = dict[str, Any]  # Any: JSON
_Check = Callable[[Any, int], str | None]  # of a value and the number of slots; the complaint, or None

PROMPT_PARAM: Mapping[Kind, str] = {
    "chat": "messages",
    "completions": "prompt",
    "responses": "input",
    "messages": "messages",
    "native": "prompt",
}


def read_body(raw: bytes) -> Body:
    """The body as JSON object. Raises ApiError 400: what is no JSON never reaches the engine."""
    try:
        body = json.loads(raw.decode(), parse_constant=_no_constant)  # decoded here: json would take UTF-16 too
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"The request body is not valid JSON: {reason}.", "invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The request body must be a JSON object.", "invalid_json")
    return body


def check_body(kind: Kind, body: Body, *, n_parallel: int) -> None:
    """Raise ApiError 400, naming the parameter, for what cannot be honoured."""
    for name, check in _CHECKS[kind].items():
        value = body.get(name)
        complaint = check(value, n_parallel) if value is not None else None
        if complaint:
            raise ApiError(400, f"{name} {complaint}", "invalid_value", name)
    for name in _REQUIRED.get(kind, ()):
        if body.get(name) is None:
            raise ApiError(400, f"{name} is required.", "missing_parameter", name)
    for name in _WITH_MEDIA:
        refuse_remote_media(body.get(name), name)


def _no_constant(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON value")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(low: float, high: float) -> _Check:
    def check(value: Any, _n_parallel: int) -> str | None:
        if _is_number(value) and low <= value <= high:
            return None
        return (
            f"must be a number from {low:g} to {high:g}."
            if math.isfinite(high)
            else f"must be a number of {low:g} or more."
        )

    return check


def _integer(low: int | None) -> _Check:
    def check(value: Any, _n_parallel: int) -> str | None:
        if _is_integer(value) and (low is None or value >= low):
            return None
        return "must be an integer." if low is None else f"must be an integer of {low} or more."

    return check


def _of_type(kind: type | tuple[type, ...], words: str) -> _Check:
    return lambda value, _n_parallel: None if isinstance(value, kind) else f"must be {words}."


def _refused(words: str) -> _Check:
    return lambda value, _n_parallel: words if value not in ([], {}, "", False) else None


def _only(allowed: tuple[object, ...], words: str) -> _Check:
    return lambda value, _n_parallel: None if value in allowed else words


def _choices(value: Any, n_parallel: int) -> str | None:
    if not _is_integer(value) or value < 1:
        return "must be an integer of 1 or more."
    if value > n_parallel:
        return f"is {value}, and this server answers {n_parallel} at once. Serve with --parallel {value} for that."
    return None


def _best_of(value: Any, _n_parallel: int) -> str | None:
    return None if value == 1 else "above 1 is not supported: ask for n answers and choose."


def _stop(value: Any, _n_parallel: int) -> str | None:
    texts = value if isinstance(value, list) else [value]
    return None if all(isinstance(text, str) for text in texts) else "must be a string or a list of strings."


def _messages(value: Any, _n_parallel: int) -> str | None:
    if not isinstance(value, list) or not value:
        return "must be a list of at least one message."
    if not all(isinstance(message, dict) for message in value):
        return "must be a list of objects."
    if not all(isinstance(message.get("role"), str) for message in value):
        return "must each have a role, which is a string."
    return None


def _tools(value: Any, _n_parallel: int) -> str | None:
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        return "must be a list of objects."
    return None


def _functions(value: Any, _n_parallel: int) -> str | None:
    if complaint := _tools(value, _n_parallel):
        return complaint
    if any(tool.get("type") != "function" for tool in value):
        return "must all be of type function: this server runs no tools of its own."
    if not all(isinstance(tool.get("function"), dict) and tool["function"].get("name") for tool in value):
        return "must each have a function with a name."
    return None


def _tool_choice(value: Any, _n_parallel: int) -> str | None:
    if value in ("none", "auto", "required"):
        return None
    if isinstance(value, dict) and isinstance(value.get("function"), dict) and value["function"].get("name"):
        return None
    return 'must be "none", "auto", "required", or an object that names a function.'


def _response_format(value: Any, _n_parallel: int) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        return 'must be an object whose type is "text", "json_object" or "json_schema".'
    schema = value.get("json_schema")
    if kind == "json_schema" and not (isinstance(schema, dict) and isinstance(schema.get("schema"), dict)):
        return "of type json_schema must hold the schema as json_schema.schema."
    return None


_BOOLEAN = _of_type(bool, "true or false")
_OBJECT = _of_type(dict, "an object")
_TEXT = _of_type(str, "a string")
_LOGIT_BIAS = _of_type((dict, list), "an object of token ids and numbers")
_SAMPLING: Mapping[str, _Check] = {
    "stream": _BOOLEAN,
    "temperature": _number(0, math.inf),
    "top_p": _number(0, 1),
    "seed": _integer(None),
}
_OPENAI: Mapping[str, _Check] = {
    **_SAMPLING,
    "stream_options": _OBJECT,
    "max_tokens": _integer(0),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "stop": _stop,
    "logit_bias": _LOGIT_BIAS,
    "n": _choices,
}
_CHECKS: Mapping[Kind, Mapping[str, _Check]] = {
    "chat": {
        "messages": _messages,
        **_OPENAI,
        "max_completion_tokens": _integer(0),
        "logprobs": _BOOLEAN,
        "top_logprobs": _integer(0),
        "tools": _functions,
        "tool_choice": _tool_choice,
        "parallel_tool_calls": _BOOLEAN,
        "response_format": _response_format,
        "reasoning_effort": _TEXT,
        "chat_template_kwargs": _OBJECT,
        "functions": _refused("is not supported: use tools."),
        "function_call": _refused("is not supported: use tool_choice."),
        "modalities": _only((["text"],), "may hold text only: this server makes no audio."),
        "audio": _refused("is not supported: this server makes no audio."),
        "web_search_options": _refused("is not supported: this server searches no web."),
        "verbosity": _only(("medium",), 'is not supported beyond "medium".'),
    },
    "completions": {
        "prompt": _of_type((str, list, dict), "a string, or a list of strings or tokens"),
        **_OPENAI,
        "logprobs": _integer(0),
        "best_of": _best_of,
        "echo": _refused("is not supported."),
        "suffix": _refused("is not supported: use /infill with a model made for it."),
    },
    "responses": {
        "input": _of_type((str, list), "a string or a list"),
        **_SAMPLING,
        "max_output_tokens": _integer(0),
        "tools": _tools,
        "instructions": _TEXT,
        "previous_response_id": _refused("is not supported: no answers are stored. Send the whole conversation."),
        "conversation": _refused("is not supported: no conversations are stored."),
        "prompt": _refused("is not supported: no prompts are stored."),
        "background": _refused("is not supported."),
    },
    "messages": {
        "messages": _messages,
        **_SAMPLING,
        "max_tokens": _integer(1),
        "stop_sequences": _stop,
        "tools": _tools,
        "tool_choice": _OBJECT,
    },
    "native": {**_SAMPLING, "stop": _stop},
    "other": {},
}
_WITH_MEDIA = ("messages", "input", "prompt", "content", "system")  # whatever the route calls its prompt
_REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "chat": ("messages",),
    "completions": ("prompt",),
    "responses": ("input",),
    "messages": ("messages", "max_tokens"),
}
