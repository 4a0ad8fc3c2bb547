"""A streamed answer put together into the one that is not streamed, as llama-server would have given it.

Pure: fed with bytes, holds no connection. The engine is always asked to stream, because it notices late that the client
of an answer in one piece has gone (DESIGN section 4).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from qrun.gateway.params import Body, Kind

__all__ = ["ASSEMBLERS", "Assembler", "EngineRefusal", "Event", "Incomplete", "SseReader"]

Event = dict[str, Any]  # Any: JSON


class Incomplete(ConnectionError):
    """The stream ended before the answer did."""


class EngineRefusal(Exception):
    """The engine broke off with an error; `body` is its envelope."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.body = body


class SseReader:
    """Events out of the bytes of a stream, wherever these are cut. Comments and `[DONE]` are no events."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that are whole now. Raises EngineRefusal for an error."""
        *frames, self._rest = (self._rest + chunk).split(b"\n\n")
        for frame in frames:
            event = _event_of(frame)
            if event is None:
                continue
            if "error" in event:
                raise EngineRefusal(json.dumps({"error": event["error"]}).encode())
            yield event


def _event_of(frame: bytes) -> Event | None:
    data = next((line[5:].strip() for line in frame.split(b"\n") if line.startswith(b"data:")), b"")
    if not data or data == b"[DONE]":
        return None
    event = json.loads(data)
    return event if isinstance(event, dict) else None


class Assembler(Protocol):
    """One answer in the making."""

    def add(self, event: Event) -> None:
        """Take in the next event."""
        ...

    def answer(self) -> Event:
        """The whole. Raises Incomplete."""
        ...


class _Choices:
    """What chat and completions share: choices by index, one usage each, the frame around them."""

    object_name = ""

    def __init__(self, body: Body) -> None:
        self._n = body.get("n") or 1
        self._frame: Event = {}
        self._choices: dict[int, Event] = {}
        self._usages: list[Event] = []
        self._timings: Event | None = None

    def add(self, event: Event) -> None:
        self._frame.update({name: event[name] for name in _FRAME if name in event})
        if event.get("usage"):
            self._usages.append(event["usage"])
        self._timings = event.get("timings", self._timings)
        for choice in event.get("choices", ()):
            self._add_choice(choice)

    def answer(self) -> Event:
        choices = [self._choices[index] for index in sorted(self._choices)]
        if not self._usages or not choices or any(choice["finish_reason"] is None for choice in choices):
            raise Incomplete("the engine's stream ended early")
        frame = dict(self._frame)
        answer = {
            "choices": [self._finished(choice) for choice in choices],
            "created": frame.get("created"),
            "model": frame.get("model"),
            "system_fingerprint": frame.get("system_fingerprint"),
            "object": self.object_name,
            "usage": _sum_of(self._usages, self._n),
            "id": frame.get("id"),
        }
        return answer if self._timings is None else {**answer, "timings": self._timings}

    def _add_choice(self, choice: Event) -> None:
        raise NotImplementedError

    def _finished(self, choice: Event) -> Event:
        raise NotImplementedError


_FRAME = ("created", "id", "model", "system_fingerprint")


def _sum_of(usages: list[Event], n: int) -> Event:
    """One usage for all choices: every token that was made, every prompt counted once.

    Each of the `n` answers to a prompt comes with its own usage, which counts the prompt again.
    """
    if len(usages) == 1:
        return usages[0]
    prompt = sum(usage["prompt_tokens"] for usage in usages) // n
    made = sum(usage["completion_tokens"] for usage in usages)
    cached = sum(usage.get("prompt_tokens_details", {}).get("cached_tokens", 0) for usage in usages) // n
    return {
        "completion_tokens": made,
        "prompt_tokens": prompt,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


class _Chat(_Choices):
    object_name = "chat.completion"

    def _add_choice(self, choice: Event) -> None:
        made = self._choices.setdefault(
            choice["index"], {"finish_reason": None, "content": [], "reasoning": [], "calls": {}}
        )
        delta = choice.get("delta") or {}
        made["content"].append(delta.get("content") or "")
        made["reasoning"].append(delta.get("reasoning_content") or "")
        for call in delta.get("tool_calls") or ():
            _add_call(made["calls"], call)
        made["finish_reason"] = choice.get("finish_reason") or made["finish_reason"]
        made["index"] = choice["index"]

    def _finished(self, choice: Event) -> Event:
        message: Event = {"role": "assistant", "content": "".join(choice["content"])}
        reasoning = "".join(choice["reasoning"])
        if reasoning:
            message["reasoning_content"] = reasoning
        if choice["calls"]:
            message["tool_calls"] = [_finished_call(choice["calls"][index]) for index in sorted(choice["calls"])]
        return {"finish_reason": choice["finish_reason"], "index": choice["index"], "message": message}


def _add_call(calls: dict[int, Event], delta: Event) -> None:
    call = calls.setdefault(delta["index"], {"id": None, "name": "", "arguments": []})
    function = delta.get("function") or {}
    call["id"] = delta.get("id") or call["id"]
    call["name"] = function.get("name") or call["name"]
    call["arguments"].append(function.get("arguments") or "")


def _finished_call(call: Event) -> Event:
    function = {"name": call["name"], "arguments": "".join(call["arguments"])}
    return {"type": "function", "function": function, "id": call["id"]}


class _Completions(_Choices):
    object_name = "text_completion"

    def _add_choice(self, choice: Event) -> None:
        made = self._choices.setdefault(choice["index"], {"finish_reason": None, "text": []})
        made["text"].append(choice.get("text") or "")
        made["finish_reason"] = choice.get("finish_reason") or made["finish_reason"]
        made["index"] = choice["index"]

    def _finished(self, choice: Event) -> Event:
        text = "".join(choice["text"])
        return {"text": text, "index": choice["index"], "logprobs": None, "finish_reason": choice["finish_reason"]}


class _Responses:
    """`response.completed` holds the whole answer already."""

    def __init__(self, _body: Body) -> None:
        self._response: Event | None = None

    def add(self, event: Event) -> None:
        if event.get("type") == "response.completed":
            self._response = event["response"]

    def answer(self) -> Event:
        if self._response is None:
            raise Incomplete("the engine's stream ended early")
        output = [{**item, "status": "completed"} for item in self._response["output"]]
        return {"completed_at": self._response["created_at"], **self._response, "output": output}


class _Messages:
    """Anthropic's events: blocks that start, grow and stop."""

    def __init__(self, _body: Body) -> None:
        self._message: Event = {}
        self._blocks: dict[int, Event] = {}
        self._ended = False

    def add(self, event: Event) -> None:
        handle = self._HANDLERS.get(event.get("type", ""))
        if handle is not None:
            handle(self, event)

    def answer(self) -> Event:
        if not self._ended or not self._message:
            raise Incomplete("the engine's stream ended early")
        blocks = [_finished_block(self._blocks[index]) for index in sorted(self._blocks)]
        return {**self._message, "content": blocks}

    def _start(self, event: Event) -> None:
        self._message = event["message"]

    def _start_block(self, event: Event) -> None:
        self._blocks[event["index"]] = {**event["content_block"], "parts": []}

    def _grow_block(self, event: Event) -> None:
        delta, block = event["delta"], self._blocks[event["index"]]
        part = next((delta[name] for name in ("text", "thinking", "partial_json") if name in delta), "")
        block["parts"].append(part)

    def _finish(self, event: Event) -> None:
        usage = {**self._message.get("usage", {}), **event.get("usage", {})}
        self._message = {**self._message, **event["delta"], "usage": usage}

    def _end(self, _event: Event) -> None:
        self._ended = True

    _HANDLERS: Mapping[str, Callable[["_Messages", Event], None]] = {
        "message_start": _start,
        "content_block_start": _start_block,
        "content_block_delta": _grow_block,
        "message_delta": _finish,
        "message_stop": _end,
    }


def _finished_block(block: Event) -> Event:
    whole = "".join(block["parts"])
    if block["type"] == "text":
        return {"type": "text", "text": whole}
    if block["type"] == "thinking":
        return {"type": "thinking", "thinking": whole, "signature": ""}
    return {"type": block["type"], "id": block["id"], "name": block["name"], "input": _arguments(whole)}


def _arguments(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return {}  # as llama-server has it for a call that was cut off


class _Native:
    """llama-server's own /completion: pieces of content, and a last event with everything but the content."""

    def __init__(self, body: Body) -> None:
        self._return_tokens = bool(body.get("return_tokens"))
        self._content: list[str] = []
        self._tokens: list[int] = []
        self._last: Event | None = None

    def add(self, event: Event) -> None:
        self._content.append(event.get("content", ""))
        self._tokens.extend(event.get("tokens", ()))
        if event.get("stop"):
            self._last = event

    def answer(self) -> Event:
        if self._last is None:
            raise Incomplete("the engine's stream ended early")
        tokens = self._tokens if self._return_tokens else []
        settings = {**self._last.get("generation_settings", {}), "stream": False}
        whole = {"content": "".join(self._content), "tokens": tokens, "generation_settings": settings}
        return {**self._last, **whole}


ASSEMBLERS: Mapping[Kind, Callable[[Body], Assembler]] = {
    "chat": _Chat,
    "completions": _Completions,
    "responses": _Responses,
    "messages": _Messages,
    "native": _Native,
}
