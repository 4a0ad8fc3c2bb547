"""The front over both real engines on real weights, asked by the real `openai` client."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from front import SERVED, Front, front_over, llamacpp_launch, wait_for

pytestmark = pytest.mark.engine

HELLO = [{"role": "user", "content": "Name three colours."}]
LONG = {"messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": 2000, "ignore_eos": True}
FREE_WITHIN_S = 3  # issue 3, point 7: a client that goes away frees its slot in that time
EXECUTABLES = {"native": "native_server", "ready": "ready_python"}


@pytest.fixture(scope="module", params=list(EXECUTABLES))
def front(request: pytest.FixtureRequest, smollm2_q4_1, tmp_path_factory) -> Iterator[Front]:
    """A front over each engine."""
    executable = request.getfixturevalue(EXECUTABLES[request.param])
    launch = llamacpp_launch(request.param, executable, smollm2_q4_1)
    with front_over(launch, tmp_path_factory.mktemp("front"), wait_s=60) as front:
        front.run(front.supervisor.ready())
        yield front


@pytest.fixture
def client(front: Front) -> Iterator[openai.OpenAI]:
    """The client that users have."""
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def raw_engine(front: Front, path: str, body: dict):
    """The engine's own answer, not streamed, past the front."""
    import aiohttp

    async def ask():
        launch = await front.supervisor.ready()
        connector = aiohttp.UnixConnector(str(launch.address.socket))
        session = aiohttp.ClientSession("http://engine", connector=connector)
        async with session, session.post(path, json=body) as answer:
            assert answer.status == 200
            return await answer.json()

    return front.run(ask())


def shape_of(value):
    """Keys and types, all the way down."""
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape_of(inner) for inner in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_chat_answers_in_one_piece_with_usage(client):
    """An answer that is not streamed has its text, its reason to end and its token counts."""
    answer = client.chat.completions.create(model=SERVED.id, messages=HELLO, max_tokens=12, temperature=0)

    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.model == SERVED.id


def test_chat_streams_the_same_text_as_it_answers_in_one_piece(client):
    """A stream adds up to the answer that is not streamed."""
    asked = {"model": "", "messages": HELLO, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]

    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) > 12
    assert chunks[-1].choices[0].finish_reason == "length"
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)


def test_stream_ends_with_usage_where_it_was_asked_for(client):
    """`include_usage` adds one last chunk without choices."""
    asked = {"model": SERVED.id, "messages": HELLO, "max_tokens": 5}
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))

    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 5


def test_completions_stream_and_answer_alike(client):
    """`/v1/completions` does both too."""
    asked = {"model": SERVED.id, "prompt": "One, two, three,", "max_tokens": 8, "temperature": 0}
    whole = client.completions.create(**asked)
    pieces = [chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True)]

    assert "".join(pieces) == whole.choices[0].text != ""
    assert whole.usage.completion_tokens == 8


def test_stop_ends_the_text_before_the_word(client):
    """`stop` is honoured and is not part of the answer."""
    answer = client.completions.create(
        model=SERVED.id, prompt="1, 2, 3, 4, 5, 6,", max_tokens=40, temperature=0, stop=["9"]
    )

    assert answer.choices[0].finish_reason == "stop"
    assert "8" in answer.choices[0].text
    assert "9" not in answer.choices[0].text


def test_same_seed_gives_the_same_text_and_another_seed_another(client):
    """`seed` is honoured at a temperature above 0."""

    def text(seed: int) -> str | None:
        asked = {"model": SERVED.id, "messages": HELLO, "max_tokens": 30, "temperature": 1.2}
        return client.chat.completions.create(**asked, seed=seed).choices[0].message.content

    assert text(1) == text(1)
    assert len({text(seed) for seed in (1, 2, 3)}) > 1


def test_schema_is_kept_by_the_answer(client):
    """`response_format` with a schema gives JSON of that schema."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "population": {"type": "integer"}},
        "required": ["city", "population"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=SERVED.id,
        messages=[{"role": "user", "content": "Describe Paris."}],
        max_tokens=200,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
    )
    made = json.loads(answer.choices[0].message.content)

    assert set(made) == {"city", "population"}
    assert isinstance(made["population"], int)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 9}),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 9, "logprobs": True, "top_logprobs": 2}),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 6, "logit_bias": [[2, 1000]]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Say 🦙 and é."}], "max_tokens": 30}),
        ("/v1/completions", {"prompt": "One, two,", "max_tokens": 9, "stop": [" five"]}),
        ("/v1/completions", {"prompt": "One, two,", "max_tokens": 9, "logprobs": 2}),
        ("/v1/completions", {"prompt": ["One, two,", "A, b,"], "max_tokens": 4}),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 9}),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 9, "stop_sequences": ["."]}),
        ("/completion", {"prompt": "One, two,", "n_predict": 9}),
        ("/completion", {"prompt": "One, two,", "n_predict": 9, "return_tokens": True}),
        ("/completion", {"prompt": "One, two,", "n_predict": 3, "n_probs": 2}),
    ],
)
def test_assembled_answer_is_the_engines_own(front, path, body):
    """What the front puts together from a stream is, key by key, what the engine answers in one piece."""
    body = {**body, "temperature": 0, "seed": 7, "cache_prompt": False}
    ours, theirs = front.post(path, body), raw_engine(front, path, body)

    assert ours.status == 200
    assert shape_of(ours.json) == shape_of(theirs)
    assert text_in(ours.json) == text_in(theirs) != ""


def text_in(answer) -> str:
    """Everything in an answer that neither time nor chance decides."""
    kept = ("choices", "content", "tokens", "stop_reason", "stop_sequence", "stop_type", "object", "type")
    texts = [item["content"] for item in answer.get("output", ())]
    return json.dumps([{key: answer[key] for key in kept if key in answer}, texts], sort_keys=True)


def test_several_choices_come_with_one_usage(front):
    """`n` answers are counted together, their prompt once."""
    one = front.post("/v1/chat/completions", {"messages": HELLO, "max_tokens": 5}).json
    two = front.post("/v1/chat/completions", {"messages": HELLO, "max_tokens": 5, "n": 2}).json

    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert two["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert two["usage"]["completion_tokens"] == 10


def test_sixteen_streams_at_once_are_all_whole(front, client):
    """More streams than slots wait their turn; each has all its tokens and its end."""

    def stream(number: int):
        chunks = list(
            client.chat.completions.create(
                model=SERVED.id,
                messages=[{"role": "user", "content": f"Count from {number}."}],
                max_tokens=20,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
        )
        return chunks[-1].usage.completion_tokens, chunks[-2].choices[0].finish_reason

    with ThreadPoolExecutor(16) as pool:
        ends = list(pool.map(stream, range(16)))

    assert ends == [(20, "length")] * 16
    wait_for(lambda: front.busy_slots() == 0)


@pytest.mark.parametrize("streams", [True, False])
def test_client_that_leaves_frees_its_slot(front, streams):
    """The engine stops generating for nobody, whether the answer was to be streamed or not."""
    connection = front.connect()
    connection.request("POST", "/v1/chat/completions", json.dumps({**LONG, "stream": streams}))
    wait_for(lambda: front.busy_slots() == 1)
    connection.close()

    wait_for(lambda: front.busy_slots() == 0, FREE_WITHIN_S)


@pytest.mark.parametrize("streams", [True, False])
def test_client_that_leaves_frees_its_slot_under_traffic(front, streams):
    """Also while another stream keeps the engine's queue busy, which delays its own notice of a closed connection."""
    other = front.connect()
    other.request("POST", "/v1/chat/completions", json.dumps({**LONG, "stream": True}))
    connection = front.connect()
    connection.request("POST", "/v1/chat/completions", json.dumps({**LONG, "stream": streams}))
    wait_for(lambda: front.busy_slots() == 2)
    connection.close()
    try:
        wait_for(lambda: front.busy_slots() == 1, FREE_WITHIN_S)
    finally:
        other.close()
        wait_for(lambda: front.busy_slots() == 0)


@pytest.mark.parametrize("streams", [True, False])
def test_client_that_leaves_while_its_prompt_is_read_frees_its_slot(front, streams):
    """The prompt of somebody who left is not read to its end, though `/slots` is asked all the time."""
    body = {"messages": [{"role": "user", "content": f"{time.time()} " + "word " * 1800}], "cache_prompt": False}
    began_at = time.monotonic()
    front.post("/v1/chat/completions", {**body, "max_tokens": 1})
    whole_s = time.monotonic() - began_at
    connection = front.connect()
    connection.request("POST", "/v1/chat/completions", json.dumps({**LONG, **body, "stream": streams}))
    wait_for(lambda: front.busy_slots() == 1)
    connection.close()

    wait_for(lambda: front.busy_slots() == 0, max(FREE_WITHIN_S, whole_s * 0.75))


def test_engine_that_dies_under_a_stream_gives_an_error_event_and_the_next_request_works(front, client):
    """No silence and no false end; the supervisor starts the engine again."""
    restarts = front.supervisor.generation
    stream = client.chat.completions.create(
        model=SERVED.id, messages=HELLO, max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    front.kill_engine()
    with pytest.raises(openai.APIError, match="stopped in the middle"):
        list(stream)
    answer = client.chat.completions.create(model=SERVED.id, messages=HELLO, max_tokens=3)

    assert answer.usage.completion_tokens == 3
    assert front.supervisor.generation == restarts + 1
    assert f"qrun_engine_restarts_total {restarts}" in front.get("/metrics").body.decode()


def test_request_that_has_received_nothing_survives_the_engine(front):
    """An answer in one piece that is under way when the engine dies is asked for again."""
    answers = []
    asked = {"messages": HELLO, "max_tokens": 100, "ignore_eos": True}
    thread = threading.Thread(target=lambda: answers.append(front.post("/v1/chat/completions", asked)))
    thread.start()
    wait_for(lambda: front.busy_slots() == 1)
    front.kill_engine()
    thread.join()

    assert answers[0].status == 200
    assert answers[0].json["usage"]["completion_tokens"] == 100


def test_prompt_that_is_too_long_is_refused_with_both_numbers(front, client):
    """400, streamed or not, with the prompt's tokens and the context's."""
    for streams in (True, False):
        with pytest.raises(openai.BadRequestError, match=r"\d{4} tokens.*2048 tokens") as refused:
            client.chat.completions.create(
                model=SERVED.id, messages=[{"role": "user", "content": "word " * 4000}], stream=streams
            )

        assert refused.value.code == "context_length_exceeded"
        assert refused.value.param == "messages"
        assert refused.value.body["n_ctx"] == 2048


def test_metrics_are_the_engines_beside_ours(front):
    """One scrape gives both; the engine's series keep their names."""
    text = front.get("/metrics").body.decode()

    assert "\nllamacpp:tokens_predicted_total " in text
    assert '\nqrun_requests_total{route="/v1/chat/completions",status="200"} ' in text
    assert "\nqrun_requests_in_flight 1\n" in text
    assert "\nqrun_time_to_first_byte_seconds_count " in text


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
WEATHER_IN_PARIS = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_demanded_tool_is_called(client, choice):
    """A demanded call comes, parsed, also from a model whose template knows no tools."""
    answer = client.chat.completions.create(
        model=SERVED.id,
        messages=WEATHER_IN_PARIS,
        tools=[WEATHER],
        tool_choice=choice,
        max_tokens=200,
        temperature=0,
    )
    (call,) = answer.choices[0].message.tool_calls

    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}


def test_tool_call_streams(client):
    """The same call as a stream, as the client library puts it together."""
    with client.chat.completions.stream(
        model=SERVED.id,
        messages=WEATHER_IN_PARIS,
        tools=[WEATHER, CLOCK],
        tool_choice="required",
        max_tokens=200,
        temperature=0,
    ) as stream:
        (choice,) = stream.get_final_completion().choices

    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name in {"get_weather", "get_time"}


def test_conversation_goes_on_after_a_tool_call(client):
    """The result of a call goes back in, and the model may answer in text."""
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        *WEATHER_IN_PARIS,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 21 degrees."},
    ]
    answer = client.chat.completions.create(
        model=SERVED.id, messages=messages, tools=[WEATHER], max_tokens=300, temperature=0
    )
    message = answer.choices[0].message

    assert bool(message.content) != bool(message.tool_calls)


def test_tool_choice_of_none_leaves_the_model_without_tools(client):
    """`tool_choice: none` answers as if there were no tools."""
    asked = {"model": SERVED.id, "messages": WEATHER_IN_PARIS, "max_tokens": 8, "temperature": 0}
    plain = client.chat.completions.create(**asked)
    without = client.chat.completions.create(**asked, tools=[WEATHER], tool_choice="none")

    assert without.choices[0].message.content == plain.choices[0].message.content
