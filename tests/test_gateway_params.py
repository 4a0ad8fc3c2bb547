"""What of a request's body is honoured, harmless or refused."""

import json

import pytest

from qrun.gateway.envelope import ApiError
from qrun.gateway.params import check_body, read_body
from qrun.gateway.prepared import prepare

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "f"}}


def refusal(kind: str, body: dict) -> ApiError | None:
    """Why the body is refused."""
    try:
        check_body(kind, body, n_parallel=2)
    except ApiError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("messages", []),
        ("messages", "Hi"),
        ("messages", ["Hi"]),
        ("messages", [{"content": "Hi"}]),
        ("messages", [{"role": 5, "content": "Hi"}]),
        ("stream", "yes"),
        ("stream", 1),
        ("temperature", "hot"),
        ("temperature", -1),
        ("temperature", True),
        ("top_p", 1.5),
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("max_completion_tokens", "10"),
        ("n", 0),
        ("n", 3),
        ("n", "2"),
        ("seed", 1.5),
        ("stop", 5),
        ("stop", ["a", 5]),
        ("logit_bias", 5),
        ("presence_penalty", 3),
        ("logprobs", 2),
        ("tools", 5),
        ("tools", [5]),
        ("tools", [{"type": "web_search"}]),
        ("tools", [{"type": "function", "function": {}}]),
        ("tool_choice", "sometimes"),
        ("tool_choice", {"type": "function"}),
        ("response_format", 5),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema"}),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("web_search_options", {"a": 1}),
        ("verbosity", "low"),
    ],
)
def test_chat_parameter_that_cannot_be_honoured_is_refused_by_name(name, value):
    """Nothing that is known is passed over in silence."""
    refused = refusal("chat", {**CHAT, name: value})

    assert refused.status == 400
    assert refused.param == name
    assert name in refused.message


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"temperature": 0, "top_p": 1, "seed": -1, "max_tokens": 0, "n": 2, "stop": ["a"], "logit_bias": {"5": -100}},
        {"temperature": None, "tools": None, "n": None, "stream": None, "response_format": None},
        {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "prediction": {"type": "content"}},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}},
        {"functions": [], "modalities": ["text"], "verbosity": "medium", "audio": {}},
        {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
        {"mirostat": 2, "no_such_key": "passes"},
    ],
)
def test_chat_parameters_that_are_honoured_or_harmless_pass(more):
    """Null counts as absent, unknown keys are the engine's."""
    assert refusal("chat", {**CHAT, **more}) is None


@pytest.mark.parametrize(
    ("kind", "body", "param"),
    [
        ("chat", {}, "messages"),
        ("completions", {}, "prompt"),
        ("completions", {"prompt": 5}, "prompt"),
        ("completions", {"prompt": "a", "best_of": 2}, "best_of"),
        ("completions", {"prompt": "a", "echo": True}, "echo"),
        ("completions", {"prompt": "a", "suffix": "b"}, "suffix"),
        ("responses", {}, "input"),
        ("responses", {"input": "a", "previous_response_id": "r"}, "previous_response_id"),
        ("responses", {"input": "a", "background": True}, "background"),
        ("messages", {"messages": CHAT["messages"]}, "max_tokens"),
        ("messages", {**CHAT, "max_tokens": 0}, "max_tokens"),
        ("native", {"prompt": "a", "temperature": "hot"}, "temperature"),
    ],
)
def test_other_routes_refuse_what_they_cannot_honour(kind, body, param):
    """Each route has its own parameters."""
    assert refusal(kind, body).param == param


@pytest.mark.parametrize("kind", ["completions", "responses", "messages", "native", "other"])
def test_plain_requests_of_every_route_pass(kind):
    """The least that each route needs."""
    prompts = {"completions": {"prompt": "a", "best_of": 1, "echo": False, "suffix": None}, "responses": {"input": "a"}}
    body = prompts.get(kind, {**CHAT, "max_tokens": 1})

    assert refusal(kind, body) is None


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", {"messages": [{"role": "user", "content": [IMAGE]}]}),
        ("chat", {"messages": [{"role": "user", "content": [{**IMAGE, "image_url": "FILE:///etc/passwd"}]}]}),
        ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://a/b"}]}]}),
        (
            "messages",
            {
                "max_tokens": 1,
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "ftp://a"}}]}
                ],
            },
        ),
        ("other", {"messages": [{"role": "user", "content": [IMAGE]}]}),
    ],
)
def test_addresses_in_a_prompt_are_refused(kind, body):
    """No request makes this server reach into its network."""
    refused = refusal(kind, body)

    assert refused.status == 400
    assert refused.code == "remote_media"


def test_content_in_the_request_itself_passes():
    """`data:` addresses are the request's own; text that holds an address is text."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = {"type": "text", "text": "See https://example.com"}

    assert refusal("chat", {"messages": [{"role": "user", "content": [image, text]}]}) is None


def test_depth_of_a_prompt_is_no_danger():
    """A prompt nested to the limit of JSON parsers is walked, not recursed into."""
    body = read_body(b'{"input": ' + b"[" * 900 + b"]" * 900 + b"}")

    assert refusal("responses", body) is None


def test_streamed_request_goes_on_as_the_clients_bytes():
    """Not written anew: whatever the engine understands, it gets, and one key more."""
    raw = b'{ "messages": [{"role": "user", "content": "Hi"}],  "stream": true, "odd": 1e2 }'
    prepared = prepare("chat", raw, read_body(raw))

    assert prepared.raw == raw[:-1] + b', "return_progress": true}'
    assert json.loads(prepared.raw) == {**read_body(raw), "return_progress": True}
    assert (prepared.streams, prepared.assembles) == (True, False)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", {**CHAT, "stream": True, "n": 2}),
        ("chat", {**CHAT, "stream": True, "return_progress": False}),
        ("completions", {"stream": True, "prompt": ["a", "b"]}),
        ("native", {"stream": True, "prompt": "a", "n_cmpl": 2}),
        ("responses", {"stream": True, "input": "a"}),
        ("native", {}),
        ("other", {"content": "a"}),
    ],
)
def test_progress_is_not_asked_for_where_it_could_not_be_taken_out(kind, body):
    """With several prompts or answers, where an event would go with it, or against the client's word."""
    prepared = prepare(kind, json.dumps(body).encode(), body)
    asked = json.loads(prepared.raw)

    assert not prepared.has_progress
    assert asked.get("return_progress") == body.get("return_progress")


@pytest.mark.parametrize("kind", ["chat", "completions", "responses", "messages", "native"])
def test_answer_in_one_piece_is_asked_for_as_a_stream(kind):
    """The engine streams with its usage, whatever the client said of that."""
    body = {**CHAT, "prompt": "a", "stream": False, "stream_options": {"x": 1}}
    prepared = prepare(kind, b"", body)
    asked = json.loads(prepared.raw)

    assert (prepared.streams, prepared.assembles) == (False, True)
    assert asked["stream"] is True
    assert asked["stream_options"] == {"x": 1, "include_usage": True}
    assert body["stream"] is False


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("chat", {"logprobs": True}),
        ("completions", {"logprobs": 2}),
        ("native", {"n_probs": 2}),
        ("native", {"prompt": ["a", "b"]}),
        ("native", {"n_cmpl": 2}),
        ("native", {"response_fields": ["content"]}),
        ("other", {}),
    ],
)
def test_what_a_stream_would_lack_is_taken_in_one_piece(kind, more):
    """The engine's own answer is exact where its stream is not."""
    raw = b"{}"
    prepared = prepare(kind, raw, {**CHAT, **more})

    assert prepared.raw is raw
    assert not prepared.assembles


def test_choice_that_names_a_function_is_a_choice_of_one():
    """llama-server passes over such a choice; this is the same demand in its words."""
    other = {"type": "function", "function": {"name": "g"}}
    body = {**CHAT, "tools": [other, TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}
    asked = json.loads(prepare("chat", b"", body).raw)

    assert asked["tools"] == [TOOL]
    assert asked["tool_choice"] == "required"


def test_choice_of_a_function_that_is_not_there_is_refused():
    """The engine would have answered in text."""
    body = {**CHAT, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "h"}}}
    with pytest.raises(ApiError, match="'h'") as refused:
        prepare("chat", b"", body)

    assert refused.value.param == "tool_choice"
