"""Streams put together, however their bytes are cut. That the result is the engine's own is test_gateway_engine's."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.gateway.assemble import ASSEMBLERS, EngineRefusal, Incomplete, SseReader


def sse(*events: object) -> bytes:
    """A stream of events."""
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def choice(index: int = 0, finish: str | None = None, **delta: object) -> dict:
    """A chunk of a chat."""
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def usage(prompt: int, made: int) -> dict:
    """A last chunk."""
    counts = {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}
    return {"id": "c", "choices": [], "usage": {**counts, "prompt_tokens_details": {"cached_tokens": 0}}}


def call(index: int = 0, id: str | None = None, **function: str) -> dict:  # noqa: A002 - the API's own word
    """A piece of a tool call."""
    return {"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})


def assembled(kind: str, stream: bytes, body: dict | None = None) -> dict:
    """The answer of a whole stream."""
    assembler, reader = ASSEMBLERS[kind](body or {}), SseReader()
    for event in reader.feed(stream):
        assembler.add(event)
    return assembler.answer()


@given(cuts=st.lists(st.integers(1, 400), max_size=20), text=st.text(max_size=40))
def test_cuts_in_the_bytes_change_nothing(cuts, text):
    """Frames are found wherever the network cut them, in the middle of a character too."""
    stream = (
        b": ping\n\n" + sse(choice(content=text), choice(content="b", finish="stop"), usage(1, 2)) + b"data: [DONE]\n\n"
    )
    reader, events = SseReader(), []
    at = 0
    for cut in [*cuts, len(stream)]:
        events += reader.feed(stream[at : at + cut])
        at += cut

    assert events == list(SseReader().feed(stream))
    assert events[0]["choices"][0]["delta"]["content"] == text


def test_tool_calls_and_reasoning_are_put_together():
    """Arguments come in pieces, several calls side by side, reasoning before all."""
    message = assembled(
        "chat",
        sse(
            choice(role="assistant", content=None),
            choice(reasoning_content="Let me"),
            choice(reasoning_content=" think."),
            choice(tool_calls=[call(0, "a", name="f", arguments="")]),
            choice(tool_calls=[call(0, arguments='{"x":')]),
            choice(tool_calls=[call(1, "b", name="g", arguments="{}")]),
            choice(tool_calls=[call(0, arguments="1}")]),
            choice(finish="tool_calls"),
            usage(3, 9),
        ),
    )["choices"][0]["message"]

    assert message["reasoning_content"] == "Let me think."
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]] == [
        ("a", "f", '{"x":1}'),
        ("b", "g", "{}"),
    ]


def test_choices_are_kept_apart_and_counted_together():
    """Each choice has its text; the prompt is counted once."""
    answer = assembled(
        "chat",
        sse(
            choice(1, content="B"),
            choice(0, content="A"),
            choice(1, finish="stop"),
            usage(5, 1),
            choice(0, finish="length"),
            usage(5, 2),
        ),
        {"n": 2},
    )

    assert [c["message"]["content"] for c in answer["choices"]] == ["A", "B"]
    assert [c["finish_reason"] for c in answer["choices"]] == ["length", "stop"]
    assert answer["usage"]["prompt_tokens"] == 5
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["usage"]["total_tokens"] == 8


def test_blocks_of_anthropics_form_are_put_together():
    """Thinking, text and a call, in the order of their indexes; a call that was cut off has no input."""
    events = [
        {
            "type": "message_start",
            "message": {"id": "m", "content": [], "usage": {"input_tokens": 4, "output_tokens": 0}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": ""}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"x"'}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    answer = assembled("messages", sse(*events))

    assert answer["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    ]
    assert answer["stop_reason"] == "max_tokens"
    assert answer["usage"] == {"input_tokens": 4, "output_tokens": 7}


@pytest.mark.parametrize("kind", list(ASSEMBLERS))
def test_stream_that_ended_early_is_no_answer(kind):
    """A part is never given for the whole."""
    early = sse(choice(content="Hel"), {"type": "message_start", "message": {}}, {"content": "Hel", "stop": False})
    with pytest.raises(Incomplete):
        assembled(kind, early)


def test_error_in_a_stream_is_raised_with_its_envelope():
    """Whatever came before it."""
    stream = sse(choice(content="Hel"), {"error": {"code": 500, "message": "no"}})
    with pytest.raises(EngineRefusal) as refused:
        assembled("chat", stream)

    assert json.loads(refused.value.body) == {"error": {"code": 500, "message": "no"}}
