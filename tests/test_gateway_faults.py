"""The front when things go wrong or slowly, over an engine that misbehaves on demand."""

import json
import socket
from collections.abc import Iterator

import pytest

from front import Front, front_of, wait_for
from qrun.errors import EngineFailed
from scripted_engine import ScriptedEngine, json_of, stream_of

CHAT = "/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "Hi"}]}
STREAMED = {**ASKED, "stream": True}
DONE = b"data: [DONE]\n\n"


def chunk(text: str | None = None, *, finish: str | None = None, usage: bool = False) -> bytes:
    """A frame of a chat's stream."""
    delta = {} if text is None else {"content": text}
    event: dict[str, object] = {"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    if usage:
        event = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


WHOLE = (chunk("Hel"), chunk("lo"), chunk(finish="stop"), chunk(usage=True), DONE)


@pytest.fixture
def front(tmp_path) -> Iterator[Front]:
    """A front over a scripted engine that has not started, with short patience."""
    with front_of(lambda: ScriptedEngine(tmp_path), wait_s=1.5, heartbeat_s=0.1) as front:
        yield front


@pytest.fixture
def engine(front) -> ScriptedEngine:
    """The engine, started."""
    front.run(front.supervisor.start())
    return front.supervisor


def open_stream(front, body=STREAMED, path=CHAT):
    """A request whose answer is read by hand."""
    connection = front.connect()
    connection.request("POST", path, json.dumps(body))
    return connection, connection.getresponse()


def test_stream_passes_byte_for_byte(front, engine):
    """What the engine sends is what the client gets, also what we could not parse."""
    odd = (b"data: {not json}\n\n", b"data: 1\n", b"\nda", b"ta: 2\n\n", DONE)
    engine.script = stream_of(*odd)
    answer = front.post(CHAT, STREAMED)

    assert answer.body == b"".join(odd)
    assert answer.headers["Content-Type"] == "text/event-stream"


def test_progress_that_only_we_asked_for_is_taken_out(front, engine):
    """It makes the engine look up while it reads a prompt; who asked for it gets it."""
    progress = b'data: {"choices": [], "prompt_progress": {"processed": 1}}\n\n'
    frames = (progress[:20], progress[20:], b": ping\n\n", progress + chunk("Hel"), chunk("lo"), DONE)
    engine.script = stream_of(*frames)
    unasked = front.post(CHAT, STREAMED)
    asked = front.post(CHAT, {**STREAMED, "return_progress": True})
    bodies = [json.loads(body) for _, body, _ in engine.requests]

    assert unasked.body == chunk("Hel") + chunk("lo") + DONE
    assert asked.body == b"".join(frames)
    assert bodies == [{**STREAMED, "return_progress": True}] * 2


def test_headers_of_neither_side_pass(front, engine):
    """The client's headers can change what the engine does; the engine's open it to foreign pages."""

    async def script(request):
        answer = await json_of({})(request)
        answer.headers["Access-Control-Allow-Origin"] = "*"
        answer.headers["Set-Cookie"] = "a=b"
        return answer

    engine.script = script
    answer = front.post("/tokenize", {}, **{"X-Conversation-Id": "1", "Cookie": "c=d", "Authorization": "Bearer x"})

    assert {"X-Conversation-Id", "Cookie", "Authorization"}.isdisjoint(engine.requests[0][2])
    assert answer.headers.get("Access-Control-Allow-Origin") is None
    assert answer.headers.get("Set-Cookie") is None
    assert answer.headers["Server"] == "qrun"


def test_stream_gets_heartbeats_while_the_model_loads(front):
    """The client sees at once that its request is alive, then the stream."""
    connection, stream = open_stream(front)
    first = stream.readline()
    engine = front.supervisor
    engine.script = stream_of(*WHOLE)
    front.run(engine.start())
    rest = stream.read()
    connection.close()

    assert first == b": heartbeat\n"
    assert rest.endswith(b"".join(WHOLE))


def test_error_after_heartbeats_is_an_event(front):
    """Once the status is sent, a refusal can only be told in the stream."""
    connection, stream = open_stream(front)
    stream.readline()
    engine = front.supervisor
    engine.script = json_of({"error": {"code": 400, "message": "no", "type": "invalid_request_error"}}, 400)
    front.run(engine.start())
    last = stream.read().decode().strip().splitlines()
    connection.close()

    assert last[-2] == "event: error"
    assert json.loads(last[-1].removeprefix("data: "))["error"]["message"] == "no"


def test_request_waits_while_the_model_loads(front):
    """A request that is not streamed waits without a sign; the health check tells."""
    engine = front.supervisor
    engine.script = stream_of(*WHOLE)
    connection = front.connect()
    connection.request("POST", CHAT, json.dumps(ASKED))
    health = front.get("/health")
    front.run(engine.start())
    answer = json.loads(connection.getresponse().read())
    connection.close()

    assert health.status == 503
    assert health.headers["Retry-After"] == "1"
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert front.get("/health").status == 200


def test_request_that_has_waited_too_long_is_told_to_come_back(front):
    """503 with Retry-After, past the limit only."""
    answer = front.post(CHAT, ASKED)

    assert answer.status == 503
    assert answer.error["code"] == "loading"
    assert answer.headers["Retry-After"] == "30"


def test_engine_that_cannot_start_is_told_with_its_reason(front):
    """Not its log's path, which is no client's business."""
    front.supervisor.failure = EngineFailed("llamacpp", "the file is cut off", "/some/where/engine.log")
    answer = front.post(CHAT, ASKED)

    assert answer.status == 503
    assert answer.error["code"] == "engine_failed"
    assert "the file is cut off" in answer.error["message"]
    assert "engine.log" not in answer.error["message"]


def test_engine_that_is_given_up_is_no_loading_model(front):
    """The health check tells the two apart."""
    front.supervisor.failure = EngineFailed("llamacpp", "the third death within a minute")
    health = front.get("/health")

    assert health.status == 503
    assert health.error["code"] == "engine_failed"


def test_engine_on_a_port_gets_its_key_and_nobody_elses(tmp_path):
    """Where there are no unix sockets the engine's random key goes with every call, the client's does not."""
    with front_of(lambda: ScriptedEngine(tmp_path, port_key="engine-key"), api_key="client-key") as front:
        front.run(front.supervisor.start())
        front.supervisor.script = json_of({"tokens": []})
        answer = front.post("/tokenize", {}, Authorization="Bearer client-key")
        (request,) = front.supervisor.requests

    assert answer.status == 200
    assert request[2]["Authorization"] == "Bearer engine-key"


@pytest.mark.parametrize("body", [ASKED, STREAMED])
def test_request_that_has_received_nothing_is_sent_to_the_next_engine(front, engine, body):
    """Once: the client sees no more than a longer wait."""

    async def script(_request):
        engine.script = stream_of(*WHOLE)
        await engine.killed(restarts=True)

    engine.script = script
    answer = front.post(CHAT, body)

    assert answer.status == 200
    assert b"lo" in answer.body
    assert len(engine.requests) == 2


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_request_that_kills_two_engines_is_given_up(front, engine, path):
    """502: a third try would only kill the next."""

    async def script(_request):
        await engine.killed(restarts=True)

    engine.script = script
    answer = front.post(path, ASKED)

    assert answer.status == 502
    assert answer.error["code"] == "engine_died"
    assert "engine stopped" in answer.error["message"]
    assert len(engine.requests) == 2


@pytest.mark.parametrize(("path", "body"), [(CHAT, STREAMED), ("/v1/messages", {**STREAMED, "max_tokens": 1})])
def test_stream_whose_engine_dies_ends_with_an_error_event(front, engine, path, body):
    """Neither silence nor a false end: what came stands, then the reason."""
    engine.script = stream_of(chunk("Hel"), then=engine.killed)
    answer = front.post(path, body)
    frames = answer.body.decode().split("\n\n")

    assert frames[0].encode() + b"\n\n" == chunk("Hel")
    assert frames[1].startswith("event: error\ndata: ")
    assert json.loads(frames[1].split("data: ")[1])["error"]["code"] == "engine_died"
    assert frames[2:] == [""]


def test_stream_that_ends_without_its_end_is_told_as_lost(front, engine):
    """A stream without `[DONE]` is cut off, however politely it was closed."""
    engine.script = stream_of(chunk("Hel"))
    answer = front.post(CHAT, STREAMED)

    assert b'"code": "engine_died"' in answer.body
    assert DONE not in answer.body


def test_engines_own_error_in_a_stream_is_the_end_of_it(front, engine):
    """What the engine told already is not told twice."""
    error = b'data: {"error": {"code": 500, "message": "decode failed", "type": "server_error"}}\n\n'
    engine.script = stream_of(chunk("Hel"), error)
    streamed = front.post(CHAT, STREAMED)
    whole = front.post(CHAT, ASKED)

    assert streamed.body == chunk("Hel") + error
    assert whole.status == 500
    assert whole.error == {"message": "decode failed", "type": "server_error", "code": "engine_error", "param": None}


@pytest.mark.parametrize("body", [ASKED, STREAMED])
def test_client_that_leaves_before_the_first_token_ends_the_engines_request(front, engine, body):
    """Also where not a byte has been sent yet; nobody is answered, and it is counted as such."""
    connection = front.connect()
    connection.request("POST", CHAT, json.dumps(body))
    wait_for(lambda: engine.open_requests == 1)
    connection.close()

    wait_for(lambda: engine.open_requests == 0, 3)
    wait_for(lambda: f'route="{CHAT}",status="499"}} 1' in front.get("/metrics").body.decode())


def test_client_that_leaves_while_the_model_loads_asks_nothing_of_the_engine(front):
    """Nobody waits for that answer any more."""
    connection, stream = open_stream(front)
    stream.readline()
    stream.close()
    connection.close()
    wait_for(lambda: "qrun_requests_in_flight 1\n" in front.get("/metrics").body.decode())
    front.run(front.supervisor.start())

    assert front.supervisor.requests == []


def test_bad_json_never_reaches_the_engine(front, engine):
    """400 from the front, for every way that a body can be none."""
    bodies = [b"{bad", b"", b"[1]", b'"text"', b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000]
    answers = [front.post(CHAT, body) for body in bodies]

    assert {(answer.status, answer.error["code"]) for answer in answers} == {(400, "invalid_json")}
    assert engine.requests == []


def test_every_way_to_miss_a_route_is_an_envelope(front):
    """Unknown paths, other methods, bodies too large, and what is dangerous in the engine."""
    missed = [
        front.get("/nothing"),
        front.post("/props", {}),
        front.post("/slots/0", {}),
        front.post("/models/load", {}),
        front.post("/v1/models", {}),
        front.ask("DELETE", CHAT),
        front.ask("OPTIONS", CHAT, headers={"Origin": "http://localhost", "Access-Control-Request-Method": "POST"}),
        front.post(CHAT, b" " * (64 * 2**20 + 1)),
    ]

    assert [answer.status for answer in missed] == [404, 405, 404, 405, 405, 405, 405, 413]
    assert all(set(answer.error) == {"message", "type", "code", "param"} for answer in missed)
    assert missed[5].headers["Allow"] == "POST"
    assert not any(name.startswith("Access-Control") for answer in missed for name in answer.headers)


def test_names_are_those_of_the_model(front, engine):
    """Any of its names in any spelling; others are told which there are."""
    engine.script = json_of({})
    known = ["", "SmolLM2-135M-Instruct", "smollm2 135m_instruct", "TINY", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    answers = [front.post("/tokenize", {"model": name}).status for name in known]
    unknown = front.post("/tokenize", {"model": "gpt-4o"})
    odd = front.post("/tokenize", {"model": 5})

    assert answers == [200] * len(known)
    assert unknown.status == 404
    assert unknown.error["code"] == "model_not_found"
    assert "SmolLM2-135M-Instruct, tiny" in unknown.error["message"]
    assert odd.status == 400


def test_models_are_listed_while_the_model_loads(front):
    """One entry, by its first name, with all names as aliases; each name finds it."""
    listed = front.get("/v1/models").json["data"]
    one = front.get("/v1/models/HuggingFaceTB/SmolLM2-135M-Instruct").json

    assert [entry["id"] for entry in listed] == ["SmolLM2-135M-Instruct"]
    assert listed[0]["aliases"] == ["SmolLM2-135M-Instruct", "tiny"]
    assert one == listed[0]
    assert front.get("/models").json["data"] == listed
    assert front.get("/v1/models/other").status == 404


def test_foreign_pages_and_names_are_refused_without_a_key(front):
    """A page in a browser, and a name that was pointed at this machine."""
    refused = [
        front.post(CHAT, ASKED, Origin="https://example.com"),
        front.post(CHAT, ASKED, Origin="null"),
        front.get("/v1/models", Host="rebound.example.com"),
    ]
    allowed = [
        front.get("/v1/models", Host="localhost:1234"),
        front.get("/v1/models", Origin="http://localhost:3000"),
        front.get("/health", Host="probe.example.com"),
    ]

    assert [answer.status for answer in refused] == [403, 403, 403]
    assert [answer.status for answer in allowed] == [200, 200, 503]


def test_page_tells_people_how_to_call_it(front):
    """Names and address on it; whatever is in them is text."""
    page = front.get("/")

    assert page.status == 200
    assert "text/html" in page.headers["Content-Type"]
    assert f"{front.url}/v1" in page.body.decode()
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.fixture
def guarded(tmp_path) -> Iterator[Front]:
    """A front with a key."""
    with front_of(lambda: ScriptedEngine(tmp_path), api_key="k3y") as front:
        yield front


def test_key_guards_every_route_but_health(guarded):
    """Prefixed or not, for people or programs; 401 comes before 404."""
    paths = ["/", "/v1/models", "/models", "/metrics", "/slots", "/nothing"]
    posts = [CHAT, "/chat/completions", "/completions", "/v1/completions", "/tokenize"]
    answers = [*(guarded.get(path) for path in paths), *(guarded.post(path, {}) for path in posts)]

    assert {answer.status for answer in answers} == {401}
    assert {answer.error["type"] for answer in answers} == {"authentication_error"}
    assert guarded.get("/health").status == 503


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer k3y"}, 200),
        ({"Authorization": "bearer  k3y"}, 200),
        ({"X-Api-Key": "k3y"}, 200),
        ({"X-Api-Key": "k3y", "Host": "qrun.example.com", "Origin": "https://example.com"}, 200),
        ({"Authorization": "Bearer k3"}, 401),
        ({"Authorization": "Bearer k3yy"}, 401),
        ({"Authorization": "Basic k3y"}, 401),
        ({"Authorization": "k3y"}, 401),
        ({"X-Api-Key": ""}, 401),
    ],
)
def test_key_is_taken_as_bearer_or_x_api_key(guarded, headers, status):
    """Who has it may come by any name and from any page."""
    assert guarded.get("/v1/models", **headers).status == status


def test_client_that_reads_slowly_holds_up_nobody(front, engine):
    """A client that does not read has its own stream waited for, not the others'."""
    big = b"data: " + b"x" * 60_000 + b"\n\n"
    engine.script = stream_of(*[big] * 200, DONE)
    slow = socket.create_connection(front.url.removeprefix("http://").split(":"))
    body = json.dumps(STREAMED).encode()
    slow.sendall(
        b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    answer = front.post(CHAT, STREAMED)
    still_open = engine.open_requests
    slow.close()

    assert len(answer.body) == 200 * len(big) + len(DONE)
    assert still_open == 1
    wait_for(lambda: engine.open_requests == 0)
