"""What the Hub says as values, what is kept of it, and what its refusals mean."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from hub_emulator import HubEmulator
from qrun import __version__, hub_client
from qrun.errors import UnsafeFile
from qrun.hub_client import BLOCK_BYTES, HubClient
from qrun.hub_errors import AccessDenied, HubUnreachable, TokenRefused
from qrun.hub_settings import HubSettings

WEIGHTS = bytes(range(251)) * 12_000  # 2.9 MiB in which no two blocks are alike


@pytest.fixture
def settings(tmp_path, hub):
    return HubSettings(
        cache_dir=tmp_path / "hub",
        listings_dir=tmp_path / "listings",
        token_path=tmp_path / "token",
        endpoint=hub.endpoint,
        retry_s=0.5,
    )


@pytest.fixture
def opened():
    """Makes clients that are closed after the test."""
    clients = []

    def make(settings, **options):
        clients.append(HubClient(settings, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(opened, settings):
    return opened(settings)


@pytest.fixture
def commit(hub):
    """The commit of maker/base-GGUF: weights in LFS and a config."""
    files = {"base-Q4_0.gguf": WEIGHTS, "config.json": b'{"model_type": "llama"}'}
    return hub.add_repo(
        "maker/base-GGUF",
        files,
        base_model="org/base",
        relation="quantized",
        downloads=7,
        library="gguf",
        branches={"4_0": {"output.safetensors": b"4 bits"}},
    )


def test_a_listing_tells_what_each_repo_is_and_its_paths(hub, client, commit):
    """One call gives names, tags, downloads and paths of all repos that match, the most downloaded first."""
    hub.add_repo("other/base-GGUF", {"base.gguf": 5}, base_model="org/base", relation="quantized", downloads=9)
    hub.add_repo("other/else", {"else.gguf": 5})

    first, second = client.models(tags=["base_model:quantized:org/base"])

    assert (first.repo_id, first.downloads) == ("other/base-GGUF", 9)
    assert (second.repo_id, second.downloads, second.library_name) == ("maker/base-GGUF", 7, "gguf")
    assert second.commit == commit
    assert second.paths == ("base-Q4_0.gguf", "config.json")
    assert "base_model:quantized:org/base" in second.tags
    assert second.last_modified == "2026-01-01T00:00:00.000Z"
    assert not second.gated
    assert client.n_calls == 1


def test_a_listing_by_words_and_author(hub, client, commit):
    """Words and author narrow a listing down, together."""
    hub.add_repo("other/base-GGUF", {"base.gguf": 5})

    assert [repo.repo_id for repo in client.models(search="base", author="other")] == ["other/base-GGUF"]


def test_pages_are_followed_up_to_the_limit_and_no_further(hub, client):
    """A listing of several pages comes whole, and no page is asked for that is not needed."""
    for number in range(2300):
        hub.add_repo(f"maker/m{number:04}", {}, downloads=number)

    everything = client.models(author="maker", limit=5000)

    assert len(everything) == 2300
    assert len({repo.repo_id for repo in everything}) == 2300
    assert everything[0].repo_id == "maker/m2299"
    assert client.n_calls == 3
    assert len(client.models(author="maker", limit=1500)) == 1500
    assert client.n_calls == 5


def test_a_next_page_on_another_host_is_asked_for_at_ours(hub, opened, settings):
    """A mirror's links name the Hub that it mirrors: the query is taken over, and no token goes there."""
    hub.add_token("hf_secret")
    for number in range(3):
        hub.add_repo(f"maker/m{number}", {})
    with HubEmulator() as stranger:
        link = {"Link": f'<{stranger.endpoint}/api/models?author=maker&limit=2>; rel="next"'}
        rows = json.dumps([{"id": "maker/m9"}]).encode()
        hub.fault("status", status=200, headers=link, body=rows, path="/api/models$", times=1)
        client = opened(replace(settings, token="hf_secret"))

        listing = client.models(author="maker", limit=3)

    assert [repo.repo_id for repo in listing] == ["maker/m9", "maker/m0", "maker/m1"]
    assert stranger.requests == []


def test_pages_without_an_end_are_refused(hub, client):
    """A listing that always has a next page ends with an error, not never."""
    hub.add_repo("maker/one", {})
    hub.fault("endless", path="/api/models")

    with pytest.raises(HubUnreachable, match="without an end"):
        client.models(author="maker", limit=300)


def test_a_repo_tells_every_file_with_its_size_and_checksums(client, commit):
    """LFS files have a sha256, all files a git id; the commit is the one the branch stands at."""
    info = client.repo("maker/base-GGUF")

    weights, config = info.files
    assert (info.repo_id, info.commit) == ("maker/base-GGUF", commit)
    assert (weights.path, weights.size_bytes) == ("base-Q4_0.gguf", len(WEIGHTS))
    assert len(weights.sha256) == 64
    assert (config.path, config.size_bytes, config.sha256) == ("config.json", 23, None)
    assert len(config.blob_id) == 40


def test_a_branch_is_a_repo_of_its_own(client, commit):
    """EXL2 repos keep a quant a branch: each has its commit and files."""
    branches = client.branches("maker/base-GGUF")

    info = client.repo("maker/base-GGUF", "4_0")
    assert branches["main"] == commit
    assert info.commit == branches["4_0"] != commit
    assert [file.path for file in info.files] == ["output.safetensors"]


def test_a_tag_is_listed_beside_the_branches(hub, client, commit):
    """A git tag names a revision as a branch does."""
    hub.add_tag("maker/base-GGUF", "v1")

    assert client.branches("maker/base-GGUF")["v1"] == commit


@pytest.mark.parametrize("repo_id", ["no/such", "nosuch", "../x", "a/../b", "a/b/c", "", "a b/c", "a/b?c"])
def test_a_repo_that_is_not_there_is_none(client, repo_id):
    """The Hub says 401 for what does not exist; that is no refusal, and no name leads elsewhere."""
    assert client.repo(repo_id) is None
    assert client.branches(repo_id) == {}


@pytest.mark.parametrize("revision", ["no-such", "0" * 40, "", ".", ".."])
def test_a_revision_that_is_not_there_is_none(client, commit, revision):
    """A branch or commit that the repo does not have is none, and never the main branch instead."""
    assert client.repo("maker/base-GGUF", revision) is None


def test_a_private_repo_is_there_for_its_token_alone(hub, opened, settings):
    """Without the token a private repo does not exist."""
    hub.add_repo("maker/private", {"a.gguf": 5}, private=True, token="hf_mine")

    assert opened(settings).repo("maker/private") is None
    assert opened(replace(settings, token="hf_mine")).repo("maker/private").repo_id == "maker/private"


def test_a_renamed_repo_is_given_under_its_new_name(hub, client, commit):
    """The Hub redirects from the old name; the answer says the new one, and files are found by either."""
    hub.add_alias("maker/old-name", "maker/base-GGUF")

    assert client.repo("maker/old-name").repo_id == "maker/base-GGUF"
    assert client.small_file("maker/old-name", commit, "config.json", most_bytes=100) == b'{"model_type": "llama"}'
    assert client.read("maker/old-name", commit, "base-Q4_0.gguf", key="k", start=5, n=10) == WEIGHTS[5:15]


@pytest.mark.parametrize("token", [None, "hf_mine"])
def test_files_of_a_gated_repo_are_denied_with_its_page(hub, opened, settings, token):
    """Exit 6 names the page's full address, and says how to go on: log in, or accept with the login there is."""
    commit = hub.add_repo("org/gated", {"config.json": b"{}", "a.gguf": b"abc"}, gated="manual", token="hf_other")
    hub.add_token("hf_mine")
    client = opened(replace(settings, token=token))

    with pytest.raises(AccessDenied) as denied:
        client.small_file("org/gated", commit, "config.json", most_bytes=10)

    assert denied.value.page == f"{hub.endpoint}/org/gated"
    assert denied.value.logged_in == (token is not None)
    with (
        pytest.raises(AccessDenied, match=r"org/gated is gated"),
        client.ranged("org/gated", commit, "a.gguf", 0, 3) as p,
    ):
        next(p)
    assert client.repo("org/gated").gated


def test_a_token_that_has_access_opens_a_gated_repo(hub, opened, settings):
    """With the right token a gated repo is as any other."""
    commit = hub.add_repo("org/gated", {"config.json": b"{}"}, gated="auto", token="hf_mine")

    client = opened(replace(settings, token="hf_mine"))

    assert client.small_file("org/gated", commit, "config.json", most_bytes=10) == b"{}"


def test_a_token_that_the_hub_does_not_know_is_said_so(opened, settings, commit):
    """A bad token closes open repos too: the error is about the token, not about the repo, and does not show it."""
    client = opened(replace(settings, token="hf_expired"))

    for ask in (lambda: client.models(search="base"), lambda: client.repo("maker/base-GGUF")):
        with pytest.raises(TokenRefused) as refused:
            ask()
        assert "hf_expired" not in str(refused.value)
        assert "/settings/tokens" in str(refused.value)


def test_a_token_that_no_header_can_hold_is_refused_unseen(hub, opened, settings):
    """What h11 would refuse with the token in its words is refused before."""
    client = opened(replace(settings, token="hf_sécret\x01"))

    with pytest.raises(TokenRefused) as refused:
        client.repo("a/b")

    assert "cret" not in str(refused.value)
    assert hub.requests == []


def test_a_repo_that_the_hub_has_taken_down_is_not_there(hub, client, commit):
    """403 with the Hub's word for it is no gate that could be opened."""
    header = {"X-Error-Message": "Access to this resource is disabled."}
    hub.fault("status", status=403, headers=header, path="/api/models/maker")

    assert client.repo("maker/base-GGUF") is None


def test_the_token_is_the_environments_else_the_logins(hub, opened, settings):
    """`hf auth login`'s file is read where no variable is set, unless the user forbade to send it unasked."""
    hub.add_token("hf_file")
    hub.add_token("hf_env")
    settings.token_path.write_text("hf_file\n")

    opened(settings).repo("a/b")
    opened(replace(settings, token="hf_env")).repo("a/b")
    opened(replace(settings, implicit_token=False)).repo("a/b")

    sent = [request.headers.get("authorization") for request in hub.requests]
    assert sent == ["Bearer hf_file", "Bearer hf_env", None]


def test_an_endpoint_that_is_no_address_is_exit_5(opened, settings):
    """Said in one line before huggingface_hub is loaded, whose import fails at it."""
    with pytest.raises(HubUnreachable, match=r"no address .* Check HF_ENDPOINT"):
        opened(replace(settings, endpoint="http://[::1")).repo("a/b")


def test_every_request_says_who_asks(hub, client):
    """The user agent names qrun and its version."""
    client.repo("a/b")

    assert hub.requests[0].headers["user-agent"].startswith(f"qrun/{__version__}; hf_hub/")


def test_a_small_file_comes_whole_and_once(client, hub, commit):
    """What stands at a commit is fetched once and kept for good."""
    first = client.small_file("maker/base-GGUF", commit, "config.json", most_bytes=100)
    n_requests = len(hub.requests)

    assert first == b'{"model_type": "llama"}'
    assert client.n_file_bytes == len(first)
    assert client.small_file("maker/base-GGUF", commit, "config.json", most_bytes=100) == first
    assert len(hub.requests) == n_requests
    assert client.n_calls == 0


def test_a_small_file_that_is_missing_or_too_long_is_none(client, commit):
    """No more than `most_bytes` are read; neither case is an error, or kept."""
    assert client.small_file("maker/base-GGUF", commit, "no.json", most_bytes=100) is None
    assert client.small_file("maker/base-GGUF", commit, "config.json", most_bytes=22) is None
    assert client.small_file("maker/base-GGUF", commit, "base-Q4_0.gguf", most_bytes=1000) is None
    assert client.n_file_bytes < 1500
    assert client.small_file("maker/base-GGUF", commit, "config.json", most_bytes=23) is not None


@pytest.mark.parametrize("path", ["../other/config.json", "/etc/passwd", "a/./b", "", "a//b", "a/.."])
def test_a_path_that_leaves_the_repo_is_refused(hub, client, path):
    """Names come from the Hub: one with dots would be an address of something else there."""
    with pytest.raises(UnsafeFile):
        client.small_file("maker/base-GGUF", "main", path, most_bytes=10)

    assert hub.requests == []


@pytest.mark.parametrize(
    ("start", "n"),
    [(0, 10), (5, BLOCK_BYTES), (BLOCK_BYTES - 1, 2), (0, 10**7), (len(WEIGHTS) - 3, 99), (10**7, 5), (7, 0)],
)
def test_a_part_of_a_file_is_read_exactly(opened, settings, commit, start, n):
    """Any range gives its bytes, fewer at the end of the file, by the network and from what is kept."""
    for _ in range(2):
        part = opened(settings).read("maker/base-GGUF", commit, "base-Q4_0.gguf", key="weights", start=start, n=n)

        assert part == WEIGHTS[start : start + n]


def test_blocks_that_were_read_are_not_read_again(hub, opened, settings, commit):
    """A header is read in growing parts and by several runs: only what is new comes over the network."""
    client = opened(settings)
    client.read("maker/base-GGUF", commit, "base-Q4_0.gguf", key="weights", start=0, n=100)
    client.read("maker/base-GGUF", commit, "base-Q4_0.gguf", key="weights", start=0, n=2 * BLOCK_BYTES)
    again = opened(settings)
    again.read("other/copy", "f" * 40, "copy.gguf", key="weights", start=0, n=2 * BLOCK_BYTES)

    assert client.n_file_bytes == 2 * BLOCK_BYTES
    assert again.n_file_bytes == 0
    ranges = [request.headers["range"] for request in hub.requests if request.path.startswith("/cdn/")]
    assert ranges == [f"bytes=0-{BLOCK_BYTES - 1}", f"bytes={BLOCK_BYTES}-{2 * BLOCK_BYTES - 1}"]


def test_a_server_without_ranges_is_read_from_the_start(hub, client, commit):
    """A mirror that ignores Range still gives the right bytes."""
    hub.fault("no_range", path="^/cdn/")

    part = client.read("maker/base-GGUF", commit, "base-Q4_0.gguf", key="k", start=BLOCK_BYTES + 5, n=10)

    assert part == WEIGHTS[BLOCK_BYTES + 5 :][:10]


def test_answers_are_kept_for_their_lifetime(hub, opened, settings, commit, monkeypatch):
    """A listing, a branch's state and the branches are asked once in LISTING_LIFETIME_S, by any process."""

    def ask():
        client = opened(settings)
        client.models(search="base")
        client.repo("maker/base-GGUF")
        client.repo("maker/base-GGUF", "main")
        client.branches("maker/base-GGUF")
        return client.n_calls

    assert [ask(), ask()] == [3, 0]
    monkeypatch.setattr(hub_client, "LISTING_LIFETIME_S", 0.0)
    assert ask() == 4


def test_refresh_asks_anew_once(hub, opened, settings, commit):
    """What was kept before a refreshing client began is not used; what it asked itself is."""
    opened(settings).models(search="base")
    opened(settings).repo("maker/base-GGUF")
    moved = hub.replace_files("maker/base-GGUF", {"new.gguf": b"new"})

    client = opened(settings, refresh=True)

    assert client.models(search="base")[0].commit == moved
    assert client.repo("maker/base-GGUF").commit == moved
    assert client.n_calls == 2
    assert client.models(search="base")[0].commit == moved
    assert client.repo("maker/base-GGUF").commit == moved
    assert client.n_calls == 2


def test_a_repo_at_a_commit_is_kept_for_good(hub, opened, settings, commit, monkeypatch):
    """What stands at a commit does not change: it is not asked for twice, refresh or not, and known from its branch."""
    opened(settings).repo("maker/base-GGUF")
    monkeypatch.setattr(hub_client, "LISTING_LIFETIME_S", 0.0)
    hub.replace_files("maker/base-GGUF", {"new.gguf": b"new"})
    client = opened(settings, refresh=True)

    assert client.repo("maker/base-GGUF", commit).commit == commit
    assert client.n_calls == 0


def test_refusals_are_not_kept(hub, opened, settings):
    """A repo that was not there yet is asked for again."""
    client = opened(settings)
    assert client.repo("maker/late") is None
    hub.add_repo("maker/late", {})

    assert client.repo("maker/late") is not None


def test_answers_with_a_token_are_kept_apart(hub, opened, settings):
    """What a token may see is not told to who has none."""
    hub.add_repo("maker/private", {}, private=True, token="hf_mine")
    mine = opened(replace(settings, token="hf_mine"))

    assert [repo.repo_id for repo in mine.models(author="maker")] == ["maker/private"]
    assert opened(settings).models(author="maker") == ()


def test_answers_of_another_hub_are_kept_apart(hub, opened, settings, commit):
    """A mirror that has less, or other bytes, answers for itself."""
    opened(settings).repo("maker/base-GGUF")
    with HubEmulator() as mirror:
        found = opened(replace(settings, endpoint=mirror.endpoint)).repo("maker/base-GGUF")

    assert found is None


def test_offline_gives_what_was_kept_whatever_its_age(hub, opened, settings, commit, monkeypatch):
    """Offline, old answers are better than none, and nothing is asked."""

    def ask(client):
        return (
            client.models(search="base"),
            client.repo("maker/base-GGUF"),
            client.branches("maker/base-GGUF"),
            client.small_file("maker/base-GGUF", commit, "config.json", most_bytes=100),
            client.read("maker/base-GGUF", commit, "base-Q4_0.gguf", key="k", start=0, n=9),
        )

    told = ask(opened(settings))
    hub.requests.clear()
    monkeypatch.setattr(hub_client, "LISTING_LIFETIME_S", 0.0)

    assert ask(opened(replace(settings, offline=True))) == told
    assert hub.requests == []


def test_offline_refuses_what_was_not_kept_and_says_why(hub, opened, settings, commit):
    """The one line says that offline was asked for, and what to do; no request is made."""
    client = opened(replace(settings, offline=True))

    asks = (
        lambda: client.models(search="base"),
        lambda: client.repo("maker/base-GGUF"),
        lambda: client.branches("maker/base-GGUF"),
        lambda: client.small_file("maker/base-GGUF", commit, "config.json", most_bytes=100),
        lambda: client.read("maker/base-GGUF", commit, "base-Q4_0.gguf", key="k", start=0, n=9),
        lambda: client.ranged("maker/base-GGUF", commit, "base-Q4_0.gguf", 0, 9).__enter__(),
    )
    for ask in asks:
        with pytest.raises(HubUnreachable, match=r"--offline.* Run this once without --offline"):
            ask()
    assert hub.requests == []


def test_a_damaged_cache_is_asked_for_again_and_mended(hub, opened, settings, commit):
    """Bytes that changed on the disk are noticed in every kind of entry, and cost a request, not a crash."""

    def ask(client):
        client.models(search="base")
        client.repo("maker/base-GGUF")
        header = client.read("maker/base-GGUF", commit, "base-Q4_0.gguf", key="k", start=0, n=9)
        return header, client.n_calls

    assert ask(opened(settings)) == (WEIGHTS[:9], 2)
    for number, path in enumerate(sorted(p for p in settings.listings_dir.rglob("*") if p.is_file())):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content if number % 2 else content[:40])

    assert ask(opened(settings)) == (WEIGHTS[:9], 2)
    assert ask(opened(settings)) == (WEIGHTS[:9], 0)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Please log in</html>",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"id": "maker/base-GGUF"}',
        b'{"id": "maker/base-GGUF", "sha": "../../x", "siblings": []}',
        b'{"id": 5, "sha": null, "siblings": []}',
        b"[" * 100_000,
        json.dumps({"id": "a/b", "sha": "0" * 40, "siblings": [{"rfilename": "x", "size": -1}]}).encode(),
        json.dumps({"id": "a/b", "sha": "0" * 40, "siblings": [{"rfilename": "x", "size": 1, "lfs": []}]}).encode(),
        json.dumps({"id": "a/b", "sha": "0" * 40, "tags": [None], "siblings": []}).encode(),
    ],
)
def test_an_answer_that_is_none_of_a_hubs_is_exit_5_and_not_kept(hub, client, commit, body):
    """A captive portal and a broken mirror say 200 too; the next request after it is a real one."""
    hub.fault("body", body=body, path="/api/models/maker", times=1)

    with pytest.raises(HubUnreachable, match="no answer of a Hub"):
        client.repo("maker/base-GGUF")

    assert client.repo("maker/base-GGUF").commit == commit


def test_the_endpoints_password_is_in_no_message(tmp_path):
    """A mirror's address may hold a user and password; errors name the host alone."""
    settings = HubSettings(tmp_path, tmp_path, tmp_path / "token", "http://me:secret@127.0.0.1:9/hf", retry_s=0)
    client = HubClient(settings)

    with pytest.raises(HubUnreachable) as unreachable:
        client.repo("a/b")

    client.close()
    assert "http://127.0.0.1:9/hf" in str(unreachable.value)
    assert "secret" not in str(unreachable.value)


def test_calls_together_keep_their_order_and_share_the_time(hub, client):
    """Sixteen at a time: their results come in the order of the calls."""
    for number in range(40):
        hub.add_repo(f"maker/m{number}", {})
    hub.fault("delay", delay_s=0.02)

    infos = client.together([lambda n=number: client.repo(f"maker/m{n}") for number in range(40)])

    assert [info.repo_id for info in infos] == [f"maker/m{number}" for number in range(40)]
    assert client.n_calls == 40


def test_the_first_error_of_calls_together_is_raised_after_all_ended(client):
    """No call is left running behind an error."""
    ended = []

    def fails(number):
        ended.append(number)
        raise HubUnreachable("hub", str(number))

    with pytest.raises(HubUnreachable, match="2"):
        client.together([lambda: ended.append(0), lambda: ended.append(1), lambda: fails(2), lambda: fails(3)])

    assert sorted(ended) == [0, 1, 2, 3]


def test_a_client_that_asks_nothing_loads_no_http(tmp_path):
    """What is stored is served without huggingface_hub and httpx2: their import alone takes longer than --help."""
    script = (
        "import sys; from pathlib import Path\n"
        "from qrun.hub_client import HubClient; from qrun.hub_settings import HubSettings\n"
        f"HubClient(HubSettings(Path({str(tmp_path)!r}), Path({str(tmp_path)!r}), Path('t'), offline=True)).close()\n"
        "print([name for name in ('huggingface_hub', 'httpx2') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("how", ["by the login", "by a broken login"])
def test_the_library_prints_nothing_on_the_users_terminal(hub, tmp_path, commit, how):
    """Warnings of huggingface_hub would be further lines beside the one that an error is; a program gets none."""
    hub.add_token("hf_file")
    hub.fault("status", status=500, path="/refs", headers={"X-HF-Warning": "topic; a warning"})
    (tmp_path / "token").write_text("hf_file\n")
    (tmp_path / "stored_tokens").write_text("broken" if how == "by a broken login" else "")
    script = (
        "from qrun.config import read_config\n"
        "from qrun.hub_errors import HubUnreachable\n"
        "from qrun.hub_client import HubClient\n"
        "client = HubClient(read_config().hub)\n"
        "print(client.repo('maker/base-GGUF').repo_id, client.repo('no/such'))\n"
        "try:\n    client.branches('maker/base-GGUF')\n"
        "except HubUnreachable as error:\n    print(error.why)\n"
        "client.close()"
    )
    environ = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint, "QRUN_CACHE_DIR": str(tmp_path)}

    command = [sys.executable, "-W", "default", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)

    assert done.stderr == ""
    assert done.stdout.startswith("maker/base-GGUF None\nit answers 500 Internal Server Error (")
    assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer hf_file"}
