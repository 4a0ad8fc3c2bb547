import threading
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, close_session, hf_hub_download
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from hub_emulator import HubEmulator

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB, no two neighbours alike


@pytest.fixture(autouse=True)
def _quiet_client():
    """huggingface_hub without progress bars; its connections are closed after each test."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    yield
    close_session()
    if shown:
        enable_progress_bars()


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture
def client():
    with httpx2.Client(timeout=20) as opened:
        yield opened


@pytest.fixture
def quant(hub):
    """A repo of one LFS file and two small ones."""
    files = {"model-Q4_0.gguf": WEIGHTS, "README.md": b"# A quant", "config.json": b"{}"}
    return hub.add_repo("maker/base-GGUF", files)


def _link(hub, client):
    return client.get(f"{hub.endpoint}/maker/base-GGUF/resolve/main/model-Q4_0.gguf").headers["location"]


def test_a_status_fault_is_an_answer_with_retry_after(hub, api, quant):
    """The fault happens as often as it was ordered, with its headers; then the Hub answers again."""
    hub.fault("status", path="^/api/models/maker", times=1, status=429, retry_after=7)
    with pytest.raises(HfHubHTTPError) as refused:
        api.model_info("maker/base-GGUF")

    assert (refused.value.response.status_code, refused.value.response.headers["retry-after"]) == (429, "7")
    assert api.model_info("maker/base-GGUF").sha == quant
    assert [seen.status for seen in hub.requests] == [429, 200]
    hub.fault("status", path="^/api/models$", times=1, status=503, retry_after=0)
    assert len(list(api.list_models())) == 1  # the library itself tries again


def test_a_reset_connection_has_no_answer(hub, client, quant):
    """A reset reaches the client as one, and the next request goes well."""
    hub.fault("reset", times=1)
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        client.get(f"{hub.endpoint}/api/models")

    assert client.get(f"{hub.endpoint}/api/models").status_code == 200
    assert [seen.status for seen in hub.requests] == [0, 200]


def test_a_cut_body_ends_early_and_the_library_resumes(hub, tmp_path):
    """A body that is cut has sent so many bytes; the library asks for what it had not yet written by a range."""
    hub.add_repo("a/b", {"w.gguf": WEIGHTS * 13})
    hub.fault("cut", path="^/cdn/", times=1, after_bytes=12 << 20)
    path = hf_hub_download("a/b", "w.gguf", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)

    cut, rest = [seen for seen in hub.requests if seen.host == "files"]
    assert Path(path).read_bytes() == WEIGHTS * 13
    assert (cut.status, cut.sent_bytes) == (200, 12 << 20)
    assert (rest.status, rest.headers["range"], rest.sent_bytes) == (206, f"bytes={DOWNLOAD_CHUNK_SIZE}-", 3 << 20)


def test_a_corrupt_body_has_the_right_size(hub, client, quant):
    """One byte differs, at the place asked for."""
    hub.fault("corrupt", path="^/cdn/", times=1, after_bytes=1000)
    link = _link(hub, client)
    got = client.get(link).content

    assert [n for n, pair in enumerate(zip(got, WEIGHTS, strict=True)) if pair[0] != pair[1]] == [1000]
    assert client.get(link).content == WEIGHTS


def test_a_slow_body_is_still_whole(hub, client, quant):
    """A slow body comes in small parts: the first is there long before the last."""
    hub.fault("slow", path="^/cdn/", bytes_per_s=100_000)
    with client.stream("GET", _link(hub, client)) as answer:
        first = next(answer.iter_raw())

    assert 0 < len(first) < len(WEIGHTS)
    assert WEIGHTS.startswith(first)


def test_a_hub_without_ranges_sends_the_whole(hub, client, quant):
    """200 in place of 206 is what a proxy that drops Range does."""
    hub.fault("no_range", path="^/cdn/")
    got = client.get(_link(hub, client), headers={"Range": "bytes=5-9"})

    assert (got.status_code, len(got.content)) == (200, 1 << 20)
    assert "content-range" not in got.headers


def test_a_repo_moves_between_two_calls(hub, api, quant):
    """The request that is met is answered by the old commit, the next by the new one."""
    hub.fault("move", path="^/api/models/maker/base-GGUF$", times=1)
    before = api.model_info("maker/base-GGUF").sha
    after = api.model_info("maker/base-GGUF")

    assert before == quant
    assert after.sha != quant
    assert len(after.siblings) == 4
    assert len(api.model_info("maker/base-GGUF", revision=quant).siblings) == 3


def test_other_answers_than_the_hubs_can_be_put_in_its_place(hub, client, quant):
    """A captive portal, a redirect elsewhere and a listing without an end are faults too."""
    hub.fault("body", path="^/api/whoami", body=b"<html>log in</html>")
    hub.fault("redirect", path="^/maker/", location="http://192.0.2.1/x")
    hub.fault("endless", path="^/api/models$")

    assert client.get(f"{hub.endpoint}/api/whoami-v2").text == "<html>log in</html>"
    assert client.get(f"{hub.endpoint}/maker/base-GGUF/resolve/main/x").headers["location"] == "http://192.0.2.1/x"
    url = f"{hub.endpoint}/api/models"
    for _ in range(5):
        page = client.get(url)
        assert [row["id"] for row in page.json()] == ["maker/base-GGUF"]
        url = page.links["next"]["url"]
    hub.clear_faults()
    assert "next" not in client.get(url).links


def test_a_hub_that_hangs_can_be_closed(client):
    """No answer comes, and the emulator ends all the same while a client still waits."""
    with HubEmulator() as hub:
        hub.fault("hang")
        failed = []

        def ask():
            try:
                client.get(f"{hub.endpoint}/api/models")
            except httpx2.TransportError as error:
                failed.append(error)

        waiting = threading.Thread(target=ask)
        waiting.start()
        while not hub.requests:
            waiting.join(0.01)
    waiting.join(20)

    assert not waiting.is_alive()
    assert len(failed) == 1


def test_a_fault_of_the_emulator_itself_fails_the_test(tmp_path, client):
    """A file that vanished under the emulator is no answer that a test could mistake for the Hub's."""
    hub = HubEmulator().__enter__()
    weights = tmp_path / "w.gguf"
    weights.write_bytes(WEIGHTS)
    hub.add_repo("maker/base-GGUF", {"model-Q4_0.gguf": weights})
    weights.unlink()
    with pytest.raises(httpx2.TransportError):
        client.get(_link(hub, client))

    with pytest.raises(RuntimeError, match="the Hub emulator itself failed"):
        hub.__exit__(None, None, None)
