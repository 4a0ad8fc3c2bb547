"""Errors of real llama-servers, as clients are told of them. The bodies were seen from llama.cpp 0.5.0."""

import json

import pytest

from qrun.gateway.envelope import ApiError, refused_by_engine

TOO_LONG = {
    "code": 400,
    "message": "request (5031 tokens) exceeds the available context size (2048 tokens), try increasing it",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 5031,
    "n_ctx": 2048,
}


def refused(status: int, error: dict) -> ApiError:
    """The engine's error as ours."""
    return refused_by_engine(status, json.dumps({"error": error}).encode(), prompt_param="messages")


def test_too_long_a_prompt_keeps_type_and_numbers_and_says_both():
    """Programs read the numbers beside the four fields, people in the sentence."""
    told = json.loads(refused(400, TOO_LONG).as_json())["error"]

    assert told["type"] == "exceed_context_size_error"
    assert (told["code"], told["param"]) == ("context_length_exceeded", "messages")
    assert (told["n_prompt_tokens"], told["n_ctx"]) == (5031, 2048)
    assert "5031" in told["message"]
    assert "2048" in told["message"]


def test_too_long_a_prompt_without_numbers_keeps_the_engines_sentence():
    """Other builds send no numbers; none are made up."""
    told = refused(400, {key: TOO_LONG[key] for key in ("message", "type")})

    assert told.message == TOO_LONG["message"]
    assert told.extra == {}


@pytest.mark.parametrize(
    "message",
    [
        "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error",
        "[json.exception.type_error.302] type must be string, but is number",
        "Failed to parse messages: Missing 'role' in message: {}",
        "Failed to parse tools: Expected 'tools' to be an array, got 5; tools = 5",
        "'messages' is required",
        '"prompt" must not be empty',
        "Invalid base64 value",
        "Cannot use both json_schema and grammar",
        "tools param requires --jinja flag",
        "Unknown reasoning format: x",
        "input (600 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
    ],
)
def test_500_for_the_clients_fault_becomes_400(message):
    """llama-server says 500 to what it throws as a plain exception."""
    told = refused(500, {"code": 500, "message": message, "type": "server_error"})

    assert told.status == 400
    assert told.message == message
    assert json.loads(told.as_json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("message", ["Compute error.", "Unable to save slot", "got exception: decode failed", ""])
def test_500_for_the_engines_own_fault_stays_500(message):
    """Not everything is the client's doing."""
    told = refused(500, {"code": 500, "message": message, "type": "server_error"})

    assert told.status == 500
    assert told.code == "engine_error"


def test_missing_projector_is_told_in_words_of_ours():
    """The engine's hint names an option of its own."""
    message = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    told = refused(500, {"code": 500, "message": message, "type": "server_error"})

    assert (told.status, told.code, told.param) == (400, "not_supported", "messages")
    assert "image" in told.message
    assert "hint" not in told.message


@pytest.mark.parametrize("kind", ["embeddings", "reranking"])
def test_501_becomes_400_with_the_way_to_have_it(kind):
    """A model that is served for text cannot do it; another server can."""
    message = f"This server does not support {kind}. Start it with `--{kind}`"
    told = refused(501, {"code": 501, "message": message, "type": "not_supported_error"})

    assert (told.status, told.type, told.code) == (400, "not_supported_error", "not_supported")
    assert f"-- --{kind}" in told.message


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Field 'temperature': type must be number, but is string", "temperature"),
        ("'messages' is required", "messages"),
        ('"prompt" must not be empty', "prompt"),
        ("[json.exception.out_of_range.403] key 'prompt' not found", "prompt"),
        ("Expected 'content' to be a string or an array", None),
    ],
)
def test_parameter_is_found_in_the_engines_sentence(message, param):
    """`param` is filled where the engine names the field."""
    told = refused(400, {"code": 400, "message": message, "type": "invalid_request_error"})

    assert (told.status, told.param) == (400, param)


def test_loading_engine_is_503_with_retry_after():
    """Clients that retry by themselves are told when."""
    told = refused(503, {"code": 503, "message": "Loading model", "type": "unavailable_error"})

    assert (told.status, told.code) == (503, "loading")
    assert told.headers["Retry-After"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "text"}', b'{"ok": 1}', b"\xff"])
def test_what_is_no_envelope_is_a_bad_gateway(body):
    """An engine that says nothing we understand is not quoted."""
    told = refused_by_engine(500, body)

    assert (told.status, told.code) == (502, "engine_error")


def test_event_is_read_as_an_error_by_sse_clients():
    """One event, whose data is the envelope."""
    event = ApiError(502, "gone", "engine_died").as_event().decode()

    assert event.startswith("event: error\ndata: {")
    assert event.endswith("}\n\n")
    assert json.loads(event.splitlines()[1].removeprefix("data: "))["error"]["message"] == "gone"
