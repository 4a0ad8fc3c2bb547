"""Tools for models whose chat template knows none: described in a message, and the answer held to JSON.

Pure. llama-server passes over `tools` where the template cannot render them, and so over a `tool_choice` that demands a
call. Here the functions are described to the model in words, its answer is constrained by a JSON schema to a call (or,
where the choice is its own, to a call or an answer in text), and what comes back is put into OpenAI's form. Its stream
comes in one piece: text cannot be told from a call before it ends.
"""

import json
import secrets
from collections.abc import Iterator
from typing import Any

from qrun.gateway.assemble import Event
from qrun.gateway.envelope import ApiError
from qrun.gateway.params import Body

__all__ = ["as_frames", "with_calls", "with_described_tools"]

_CALL = 'To call a function, answer with JSON only: {"name": NAME, "arguments": {...}}.'
_TAKEN = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "logprobs", "messages")
_ANSWER = 'To answer without a call, write {"answer": TEXT}.'


def with_described_tools(body: Body) -> Body:
    """The request as the engine is asked: no tools in it, a message that tells of them, a schema for the answer.

    Raises ApiError 400 for what cannot be had beside that.
    """
    for name in ("response_format", "logprobs"):
        if body.get(name):
            sentence = f"{name} cannot be had together with tools: this model's chat template has none."
            raise ApiError(400, sentence, "not_supported", name)
    tools, must_call = body["tools"], body.get("tool_choice") == "required"
    kept = {key: value for key, value in body.items() if key not in _TAKEN}
    messages = [*_described(tools, must_call=must_call), *map(_plain, body["messages"])]
    return {**kept, "messages": _systems_joined(messages), "json_schema": _schema(tools, must_call=must_call)}


def with_calls(answer: Event) -> Event:
    """The engine's answer in OpenAI's form. A text that was cut off stays as it is."""
    return {**answer, "choices": [_choice(choice) for choice in answer["choices"]]}


def as_frames(answer: Event, *, include_usage: bool) -> bytes:
    """The answer as the stream that the client asked for."""
    chunks = [json.dumps(chunk) for chunk in _chunks(answer, include_usage=include_usage)]
    return "".join(f"data: {data}\n\n" for data in (*chunks, "[DONE]")).encode()


def _described(tools: list[Body], *, must_call: bool) -> Iterator[Body]:
    functions = "\n".join(json.dumps(tool["function"]) for tool in tools)
    end = _CALL if must_call else f"{_CALL} {_ANSWER}"
    yield {"role": "system", "content": f"You have these functions:\n{functions}\n{end}"}


def _plain(message: Body) -> Body:
    """Calls and their results in words: the template would drop them."""
    if message["role"] == "tool":
        return {"role": "user", "content": f"The function returned: {_text(message.get('content'))}"}
    if message["role"] == "assistant" and message.get("tool_calls"):
        calls = [call.get("function", {}) for call in message["tool_calls"]]
        said = "\n".join(f'{{"name": {json.dumps(c.get("name"))}, "arguments": {c.get("arguments")}}}' for c in calls)
        return {"role": "assistant", "content": said}
    return message


def _text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def _systems_joined(messages: list[Body]) -> list[Body]:
    """One system message at the start: many templates take no second one."""
    first, *rest = messages
    if rest and rest[0]["role"] in {"system", "developer"}:
        return [{"role": "system", "content": f"{_text(rest[0].get('content'))}\n\n{first['content']}"}, *rest[1:]]
    return messages


def _schema(tools: list[Body], *, must_call: bool) -> Body:
    forms = [_object(name={"const": f["name"]}, arguments=_parameters(f)) for f in (tool["function"] for tool in tools)]
    if not must_call:
        forms.append(_object(answer={"type": "string"}))
    return {"anyOf": forms}


def _object(**properties: object) -> Body:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _parameters(function: Body) -> Body:
    return function.get("parameters") or {"type": "object"}


def _choice(choice: Event) -> Event:
    message = choice["message"]
    said = _parsed(message.get("content"))
    if isinstance(said.get("answer"), str):
        return {**choice, "message": {**message, "content": said["answer"]}}
    if "name" not in said:
        return choice
    function = {"name": said["name"], "arguments": json.dumps(said.get("arguments", {}))}
    call = {"type": "function", "function": function, "id": f"call_{secrets.token_hex(12)}"}
    return {**choice, "finish_reason": "tool_calls", "message": {**message, "content": None, "tool_calls": [call]}}


def _parsed(content: object) -> Event:
    try:
        said = json.loads(content) if isinstance(content, str) else None
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _chunks(answer: Event, *, include_usage: bool) -> Iterator[Event]:
    frame = {name: answer.get(name) for name in ("created", "id", "model", "system_fingerprint")}
    frame["object"] = "chat.completion.chunk"
    for choice in answer["choices"]:
        delta = dict(choice["message"])
        if "tool_calls" in delta:
            delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(delta["tool_calls"])]
        one = {"index": choice["index"], "finish_reason": None}
        yield {**frame, "choices": [{**one, "delta": delta}]}
        yield {**frame, "choices": [{**one, "finish_reason": choice["finish_reason"], "delta": {}}]}
    if include_usage:
        yield {**frame, "choices": [], "usage": answer["usage"]}
