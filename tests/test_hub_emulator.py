import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi, close_session, hf_hub_download, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from hub_emulator import HubEmulator

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB, no two neighbours alike
CARD = b"---\nbase_model: org/base\nbase_model_relation: quantized\n---\n# A quant\n"


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
    """A repo of one LFS file, a card that tells its base, and a config."""
    files = {"model-Q4_0.gguf": WEIGHTS, "README.md": CARD, "config.json": b'{"model_type": "llama"}'}
    return hub.add_repo("maker/base-GGUF", files, downloads=7, library="gguf")


def _ids(found):
    return [model.id for model in found]


def _link(hub, client, path="maker/base-GGUF/resolve/main/model-Q4_0.gguf"):
    return client.get(f"{hub.endpoint}/{path}").headers["location"]


def test_a_search_ignores_case_and_wants_every_word(hub, api):
    """A repo is found where its id contains each word of the search, in any case."""
    for name in ("a/Qwen3-8B-GGUF", "b/qwen3-8b-mlx", "a/Qwen3-14B-GGUF"):
        hub.add_repo(name, {})

    assert set(_ids(api.list_models(search="QWEN3-8b"))) == {"a/Qwen3-8B-GGUF", "b/qwen3-8b-mlx"}
    assert _ids(api.list_models(search="qwen3-8b gguf")) == ["a/Qwen3-8B-GGUF"]
    assert _ids(api.list_models(search="qwen3-8b", author="b")) == ["b/qwen3-8b-mlx"]
    assert _ids(api.list_models(search="llama")) == []


def test_filters_are_combined_by_and(hub, api):
    """A repo is listed where it carries every tag asked for; relations, libraries and formats are tags."""
    hub.add_repo("a/one", {"m.gguf": b"x"}, base_model="o/base", relation="quantized")
    hub.add_repo("a/two", {"m.safetensors": b"x"}, base_model="o/base", relation="quantized", library="mlx")
    hub.add_repo("a/old", {"m.gguf": b"x"}, base_model="o/base")
    hub.add_repo("a/gated", {"m.gguf": b"x"}, gated="auto")

    assert set(_ids(api.list_models(filter="base_model:quantized:o/base"))) == {"a/one", "a/two"}
    assert _ids(api.list_models(filter=["base_model:quantized:o/base", "gguf"])) == ["a/one"]
    assert set(_ids(api.list_models(filter="base_model:o/base"))) == {"a/one", "a/two", "a/old"}
    assert _ids(api.list_models(filter="mlx")) == ["a/two"]
    assert set(_ids(api.list_models(apps="llama.cpp", gated=False))) == {"a/one", "a/old"}


def test_a_listing_is_sorted_and_pages_follow_its_link(hub, api):
    """Rows come in the order asked for, most first; further pages are found by the Link header alone."""
    for n in range(25):
        hub.add_repo(f"a/m{n:02}", {}, downloads=n, last_modified=f"2026-01-{30 - n:02}T00:00:00.000Z")

    assert _ids(api.list_models(sort="downloads", limit=3)) == ["a/m24", "a/m23", "a/m22"]
    assert _ids(api.list_models(sort="last_modified", limit=2)) == ["a/m00", "a/m01"]
    hub.requests.clear()
    first = httpx2.get(f"{hub.endpoint}/api/models?limit=10&sort=downloads")
    assert len(first.json()) == 10
    second = httpx2.get(first.links["next"]["url"])
    third = httpx2.get(second.links["next"]["url"])
    assert [row["id"] for row in third.json()] == [f"a/m{n:02}" for n in range(4, -1, -1)]
    assert "next" not in third.links


def test_a_row_holds_what_was_asked_for(hub, api, quant):
    """Plain rows are short, full ones name the files, `expand` gives the named properties and no others."""
    (plain,) = api.list_models()
    (full,) = api.list_models(full=True, cardData=True)
    (expanded,) = api.list_models(expand=["sha", "siblings", "gated", "downloads", "lastModified"])

    assert (plain.sha, plain.siblings, plain.downloads) == (None, None, 7)
    assert full.sha == quant
    assert full.card_data.base_model == ["org/base"]
    assert [file.rfilename for file in expanded.siblings] == ["README.md", "config.json", "model-Q4_0.gguf"]
    assert (expanded.sha, expanded.gated, expanded.downloads, expanded.tags) == (quant, False, 7, None)
    with pytest.raises(HfHubHTTPError, match="Invalid expand: size"):
        list(api.list_models(expand=["size"]))


def test_info_gives_sizes_and_ids_of_the_true_bytes(api, quant):
    """With blobs=true each file has its size and git id, and an LFS file the sha256 of its bytes."""
    info = api.model_info("maker/base-GGUF", files_metadata=True)
    files = {file.rfilename: file for file in info.siblings}

    assert info.sha == quant
    assert (info.library_name, info.config) == ("gguf", {"model_type": "llama"})
    assert {"gguf", "base_model:org/base", "base_model:quantized:org/base"} <= set(info.tags)
    weights = files["model-Q4_0.gguf"]
    assert (weights.size, weights.lfs.size, weights.lfs.pointer_size) == (1 << 20, 1 << 20, 132)
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert files["README.md"].lfs is None
    assert files["README.md"].blob_id == hashlib.sha1(b"blob %d\0" % len(CARD) + CARD).hexdigest()  # noqa: S324 - git's


def test_missing_things_are_the_errors_that_the_library_knows(hub, api, quant):
    """A missing repo, revision or file raises huggingface_hub's own error for it."""
    hub.add_token("hf_known")

    with pytest.raises(RepositoryNotFoundError) as missing:
        api.model_info("maker/nothing")
    assert missing.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError) as missing:
        api.model_info("maker/nothing", token="hf_known")
    assert missing.value.response.status_code == 404
    with pytest.raises(RevisionNotFoundError):
        api.model_info("maker/base-GGUF", revision="8_0")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("maker/base-GGUF", "no.json")
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree("maker/base-GGUF", "no-folder"))
    assert not isinstance(missing.value, GatedRepoError)


def test_a_tree_of_thousands_comes_in_pages(hub, api):
    """A recursive tree lists every file and folder, a thousand a page."""
    hub.add_repo("a/many", {f"part/{n % 7}/f{n:04}.bin": n for n in range(2300)})

    tree = list(api.list_repo_tree("a/many", recursive=True))
    assert len([entry for entry in tree if hasattr(entry, "size")]) == 2300
    assert {entry.path for entry in tree if not hasattr(entry, "size")} == {"part", *(f"part/{n}" for n in range(7))}
    assert len(hub.requests) == 3
    assert [entry.path for entry in api.list_repo_tree("a/many")] == ["part"]
    assert len(list(api.list_repo_tree("a/many", "part/3"))) == 329


def test_branches_and_tags_are_revisions(hub, api):
    """EXL2 repos keep each width on a branch: refs name them, and info, tree and files follow the one asked for."""
    main = hub.add_repo("t/m-exl2", {"measurement.json": b"{}"}, branches={"4_25": {"output.safetensors": WEIGHTS}})
    hub.add_tag("t/m-exl2", "v1")
    refs = api.list_repo_refs("t/m-exl2", include_pull_requests=True)

    commits = {branch.name: branch.target_commit for branch in refs.branches}
    assert commits["main"] == main
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", main)]
    info = api.model_info("t/m-exl2", revision="4_25", files_metadata=True)
    assert (info.sha, [file.rfilename for file in info.siblings]) == (commits["4_25"], ["output.safetensors"])
    assert [file.path for file in api.list_repo_tree("t/m-exl2", revision="v1")] == ["measurement.json"]
    assert [file.size for file in api.get_paths_info("t/m-exl2", ["output.safetensors", "no"], revision="4_25")] == [
        1 << 20
    ]


def test_a_commit_is_named_by_its_content_and_stays(hub, api):
    """The same files make the same commit on any Hub; after a move the old commit is still there, by its id."""
    first = hub.add_repo("a/b", {"x.txt": b"one"})
    with HubEmulator() as other:
        assert other.add_repo("a/b", {"x.txt": b"one"}) == first
    second = hub.replace_files("a/b", {"x.txt": b"two"})

    assert first != second
    assert api.model_info("a/b").sha == second
    assert api.model_info("a/b", revision=first, files_metadata=True).sha == first
    assert [commit.commit_id for commit in api.list_repo_commits("a/b")] == [second, first]
    assert httpx2.get(f"{hub.endpoint}/a/b/resolve/{first}/x.txt").text == "one"


def test_a_download_lands_in_the_librarys_cache(hub, quant, tmp_path):
    """The real library stores what is served: blobs by sha256 or git id, nothing for scan_cache_dir to warn of."""
    path = Path(hf_hub_download("maker/base-GGUF", "model-Q4_0.gguf", endpoint=hub.endpoint, cache_dir=tmp_path))
    hub.requests.clear()
    folder = snapshot_download("maker/base-GGUF", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)

    assert path.read_bytes() == WEIGHTS
    assert path.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()
    assert (Path(folder).name, Path(folder, "README.md").read_bytes()) == (quant, CARD)
    scanned = scan_cache_dir(tmp_path)
    assert (len(scanned.repos), scanned.warnings) == (1, [])
    assert [seen for seen in hub.requests if seen.host == "files"] == []  # the weights were there


def test_a_token_stays_with_the_hub(hub, quant, tmp_path):
    """LFS bytes come from another host by a signed address; the library sends no token there, and neither may we."""
    hub.add_token("hf_mine")
    hf_hub_download("maker/base-GGUF", "model-Q4_0.gguf", endpoint=hub.endpoint, cache_dir=tmp_path, token="hf_mine")

    told = {seen.host: seen.headers.get("authorization") for seen in hub.requests}
    assert told == {"hub": "Bearer hf_mine", "files": None}
    assert [(seen.method, seen.status) for seen in hub.requests] == [("HEAD", 302), ("GET", 200)]


def test_a_gated_repo_is_seen_by_all_and_read_by_the_accepted(hub, api, tmp_path):
    """Metadata is open; bytes are 401 without a token, 403 with one that was not accepted, both GatedRepo."""
    hub.add_repo("meta/base", {"config.json": b"{}"}, gated="manual", token="hf_accepted")
    hub.add_token("hf_other")

    def fetch(token):
        return api.hf_hub_download("meta/base", "config.json", cache_dir=tmp_path, token=token)

    assert api.model_info("meta/base", files_metadata=True).gated == "manual"
    for token, status in ((False, 401), ("hf_other", 403)):
        with pytest.raises(GatedRepoError) as refused:
            fetch(token)
        assert refused.value.response.status_code == status
    with pytest.raises(GatedRepoError):
        api.auth_check("meta/base")
    assert Path(fetch("hf_accepted")).read_bytes() == b"{}"
    hub.accept("meta/base", "hf_other")
    api.auth_check("meta/base", token="hf_other")


def test_a_private_repo_is_not_there_for_others(hub, api):
    """A private repo is neither listed nor found without its token."""
    hub.add_repo("me/mine", {}, private=True, token="hf_me")

    assert (_ids(api.list_models()), _ids(api.list_models(token="hf_me"))) == ([], ["me/mine"])
    assert api.model_info("me/mine", token="hf_me").private is True
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("me/mine")


def test_an_invalid_token_is_refused_everywhere(hub, api, quant):
    """A token that nobody owns is 401, on public repos too, and is not taken for a missing repo."""
    hub.add_token("hf_mine", "alice")

    assert api.whoami(token="hf_mine")["name"] == "alice"
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as refused:
        api.model_info("maker/base-GGUF", token="hf_wrong")
    assert not isinstance(refused.value, RepositoryNotFoundError)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_wrong")


def test_a_renamed_repo_redirects(hub, api, quant, tmp_path):
    """An old id leads to today's repo, for its metadata and for its files."""
    hub.add_alias("maker/old-name", "maker/base-GGUF")

    assert api.model_info("maker/old-name").id == "maker/base-GGUF"
    path = api.hf_hub_download("maker/old-name", "config.json", cache_dir=tmp_path)
    assert Path(path).read_bytes() == b'{"model_type": "llama"}'


@pytest.mark.usefixtures("quant")
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=1048570-", 1048570, 1048576),
        ("bytes=-6", 1048570, 1048576),
        ("bytes=1000-99999999", 1000, 1048576),
        ("bytes=-99999999", 0, 1048576),
    ],
)
def test_a_range_is_answered_by_206(hub, client, asked, start, stop):
    """Closed, open and suffix ranges give their bytes and say which they are."""
    got = client.get(_link(hub, client), headers={"Range": asked})

    assert got.status_code == 206
    assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/{1 << 20}"
    assert got.content == WEIGHTS[start:stop]


@pytest.mark.parametrize("source", ["bytes", "file", "zeros"])
def test_a_range_is_the_same_from_memory_disk_and_zeros(hub, client, tmp_path, source):
    """What stands behind a file makes no difference to who reads it."""
    data = bytes(3 << 20) if source == "zeros" else WEIGHTS * 3
    (tmp_path / "f").write_bytes(data)
    hub.add_repo("a/b", {"w.gguf": {"bytes": data, "file": tmp_path / "f", "zeros": len(data)}[source]})
    got = client.get(_link(hub, client, "a/b/resolve/main/w.gguf"), headers={"Range": "bytes=77-2999999"})

    assert got.content == data[77:3000000]
    assert hub.requests[-1].sent_bytes == 3000000 - 77


def test_a_range_past_the_end_is_416(hub, client, quant):
    """A range that begins past the end names the true size; two ranges at once are answered by the whole."""
    link = _link(hub, client)
    got = client.get(link, headers={"Range": "bytes=1048576-"})

    assert (got.status_code, got.headers["content-range"]) == (416, "bytes */1048576")
    assert client.get(link, headers={"Range": "bytes=0-1,5-6"}).status_code == 200


def test_a_signed_address_holds_for_its_time_and_its_file_only(hub, client, quant):
    """After its time, with another signature or with a token the storage refuses."""
    link = _link(hub, client)

    assert client.get(link, headers={"Authorization": "Bearer hf_x"}).status_code == 400
    assert client.get(link.replace("Signature=", "Signature=0")).status_code == 403
    hub.link_lifetime_s = -1
    assert client.get(_link(hub, client)).status_code == 403
    assert client.get(link).status_code == 200


def test_text_comes_gzipped_to_who_takes_it(hub, client, quant):
    """Text files go out gzipped and chunked, their range ignored; who wants them as they are gets 206."""
    url = f"{hub.endpoint}/maker/base-GGUF/resolve/main/README.md"
    packed = client.get(url, headers={"Range": "bytes=0-3"})
    plain = client.get(url, headers={"Range": "bytes=0-3", "Accept-Encoding": "identity"})

    assert (packed.status_code, packed.headers["content-encoding"], packed.content) == (200, "gzip", CARD)
    assert "content-length" not in packed.headers
    assert (plain.status_code, plain.content, plain.headers["x-repo-commit"]) == (206, CARD[:4], quant)


def test_small_files_can_be_redirected_as_todays_hub_does(tmp_path):
    """A relative redirect to the same host stands before a file that lies in git, and the library follows it."""
    with HubEmulator(cached_small_files=True) as hub:
        commit = hub.add_repo("a/b", {"config.json": b"{}"})
        path = hf_hub_download("a/b", "config.json", endpoint=hub.endpoint, cache_dir=tmp_path, token=False)

        assert Path(path).read_bytes() == b"{}"
        assert [(seen.method, seen.status) for seen in hub.requests] == [("HEAD", 307), ("HEAD", 200), ("GET", 200)]
        assert hub.requests[1].path == f"/api/resolve-cache/models/a/b/{commit}/config.json"


def test_eight_parallel_ranges_are_served_from_one_file(hub, client, quant):
    """Parallel readers of one file each get their own part."""
    link, step = _link(hub, client), (1 << 20) // 8

    def part(n):
        return client.get(link, headers={"Range": f"bytes={n * step}-{(n + 1) * step - 1}"}).content

    with ThreadPoolExecutor(8) as pool:
        assert b"".join(pool.map(part, range(8))) == WEIGHTS


def test_by_hand_it_serves_a_folder_and_the_listing(tmp_path, client):
    """The module run as a program prints its address and serves what it was told to, until it is ended."""
    command = [sys.executable, Path(__file__).with_name("hub_emulator.py"), "--listing", "--folder", _folder(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        try:
            endpoint = served.stdout.readline().strip()
            told = client.get(f"{endpoint}/api/models/org/name?blobs=true").json()
            listed = client.get(f"{endpoint}/api/models?search=SmolLM3").json()
        finally:
            served.terminate()

    assert [file["size"] for file in told["siblings"]] == [2, 5]
    assert {"HuggingFaceTB/SmolLM3-3B", "unsloth/SmolLM3-3B-GGUF"} <= {row["id"] for row in listed}


def _folder(root):
    folder = root / "org" / "name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / "w.gguf").write_bytes(b"bytes")
    return root
