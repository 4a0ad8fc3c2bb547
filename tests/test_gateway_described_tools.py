"""Tools told in words, and calls read out of JSON. The real model's calls are test_gateway_engine's."""

import json

import pytest

from qrun.gateway.described_tools import as_frames, with_calls, with_described_tools
from qrun.gateway.envelope import ApiError

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": PARAMETERS}}
HELLO = {"role": "user", "content": "Hello"}


def answer(content: str, finish: str = "stop") -> dict:
    """What the engine said."""
    message = {"role": "assistant", "content": content}
    return {"id": "c", "choices": [{"index": 0, "finish_reason": finish, "message": message}], "usage": {"n": 1}}


def test_tools_are_described_and_the_answer_is_held_to_them():
    """The engine gets no tools, a system message that names them, and a schema of call or answer."""
    asked = with_described_tools({"messages": [HELLO], "tools": [TOOL], "seed": 1})
    call, text = asked["json_schema"]["anyOf"]

    assert "tools" not in asked
    assert asked["seed"] == 1
    assert asked["messages"][0]["role"] == "system"
    assert "weather" in asked["messages"][0]["content"]
    assert asked["messages"][1] == HELLO
    assert call["properties"] == {"name": {"const": "weather"}, "arguments": PARAMETERS}
    assert list(text["properties"]) == ["answer"]


def test_demanded_call_leaves_no_other_answer():
    """`required` takes the answer in text out of the schema."""
    asked = with_described_tools({"messages": [HELLO], "tools": [TOOL, TOOL], "tool_choice": "required"})

    assert [list(form["properties"]) for form in asked["json_schema"]["anyOf"]] == [["name", "arguments"]] * 2


def test_system_message_of_the_client_stays_first():
    """There is one system message: many templates take no second."""
    asked = with_described_tools({"messages": [{"role": "system", "content": "Be kind."}, HELLO], "tools": [TOOL]})

    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert asked["messages"][0]["content"].startswith("Be kind.")


def test_calls_and_results_of_the_conversation_are_told_in_words():
    """The template would drop them."""
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    history = [HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "Sunny"}]
    said = [message["content"] for message in with_described_tools({"messages": history, "tools": [TOOL]})["messages"]]

    assert json.loads(said[2]) == {"name": "weather", "arguments": {"city": "Paris"}}
    assert "Sunny" in said[3]


@pytest.mark.parametrize("name", ["response_format", "logprobs"])
def test_what_cannot_be_had_beside_described_tools_is_refused(name):
    """The one schema is taken; nothing is passed over in silence."""
    with pytest.raises(ApiError) as refused:
        with_described_tools({"messages": [HELLO], "tools": [TOOL], name: {"type": "json_object"}})

    assert refused.value.param == name


def test_call_comes_in_openais_form():
    """Name and arguments, an id of its own, and the reason to end."""
    (choice,) = with_calls(answer('{"name": "weather", "arguments": {"city": "Paris"}}'))["choices"]
    (call,) = choice["message"]["tool_calls"]

    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert call["id"].startswith("call_")


def test_answer_in_text_comes_as_text():
    """The wrapping is ours and is taken off."""
    (choice,) = with_calls(answer('{"answer": "Hello!"}'))["choices"]

    assert choice["message"]["content"] == "Hello!"
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("said", ['{"name": "weather", "argu', "", "plain text", "[1]", '{"other": 1}'])
def test_what_is_neither_stays_as_it_is(said):
    """A call that was cut off is not guessed."""
    given = answer(said, "length")

    assert with_calls(given) == given


def test_stream_of_a_call_is_one_that_clients_read():
    """Delta, end, usage where it was asked for, `[DONE]`."""
    whole = with_calls(answer('{"name": "weather", "arguments": {}}'))
    frames = as_frames(whole, include_usage=True).decode().split("\n\n")
    delta, end, usage = (json.loads(frame.removeprefix("data: ")) for frame in frames[:3])

    assert delta["object"] == "chat.completion.chunk"
    assert delta["choices"][0]["delta"]["tool_calls"][0]["index"] == 0
    assert end["choices"][0] == {"index": 0, "finish_reason": "tool_calls", "delta": {}}
    assert usage["usage"] == {"n": 1}
    assert frames[3:] == ["data: [DONE]", ""]
    assert len(as_frames(whole, include_usage=False).decode().split("\n\n")) == 4
