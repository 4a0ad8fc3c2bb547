"""What lies in the Hub's cache as a source: whoever put it there, without network, without huggingface_hub."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, snapshot_download

from qrun.errors import Failure, FileDamaged, ModelNotFound, NotAModel
from qrun.hub_settings import HubSettings
from qrun.names import parse_model
from qrun.source_stored import StoredSource
from tiny_gguf import write_tiny_gguf

REPO = "quanter/Tiny-1B-Instruct-GGUF"
CARD = b"---\nbase_model: acme/Tiny-1B-Instruct\nbase_model_relation: quantized\n---\n"


@pytest.fixture
def quants(tmp_path):
    """Files of two quants."""
    q8 = write_tiny_gguf(tmp_path / "made" / "Tiny-1B-Instruct-Q8_0.gguf")
    q4 = write_tiny_gguf(tmp_path / "made" / "Tiny-1B-Instruct-Q4_0.gguf", tensor_type="Q4_0", file_type=2)
    return {q8.name: q8, q4.name: q4}


@pytest.fixture
def cache(tmp_path):
    """An empty Hub cache."""
    return tmp_path / "hub"


def source(cache: Path) -> StoredSource:
    """The cache as a source."""
    return StoredSource(HubSettings(cache, cache / "listings", cache / "token"))


def find(cache: Path, text: str):
    """What the cache has of MODEL."""
    return source(cache).find(parse_model(text))


def shards(folder: Path) -> dict[str, Path]:
    """Two files that are named as the shards of one set."""
    names = [f"Tiny-1B-Instruct-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    return {name: write_tiny_gguf(folder / name) for name in names}


def test_what_hf_download_stored_is_found_by_its_base(hub, cache, quants):
    """A whole snapshot by huggingface_hub: commit, branch, sha256 and files, and it is said to be stored."""
    commit = hub.add_repo(REPO, {**quants, "README.md": CARD})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)

    found = find(cache, "tiny 1b instruct")

    assert found.base_model == "acme/Tiny-1B-Instruct"
    assert [one.quant for one in found.candidates] == ["Q4_0", "Q8_0"]
    one = found.candidates[1]
    assert (one.repo_id, one.revision, one.ref, one.publisher) == (REPO, commit, "main", "quanter")
    assert one.stored
    path = source(cache).local_path(one)
    assert path == cache / "models--quanter--Tiny-1B-Instruct-GGUF" / "snapshots" / commit / one.files[0].path
    assert one.files[0].sha256 == path.resolve().name


def test_a_file_without_its_card_is_found_by_the_repos_name(hub, cache, quants):
    """`hf download REPO FILE` brings no README: the repo's id tells the model."""
    hub.add_repo(REPO, {**quants, "README.md": CARD})
    hf_hub_download(REPO, "Tiny-1B-Instruct-Q8_0.gguf", endpoint=hub.endpoint, cache_dir=cache)

    assert [one.quant for one in find(cache, "Tiny-1B-Instruct").candidates] == ["Q8_0"]
    assert [one.quant for one in find(cache, REPO.lower()).candidates] == ["Q8_0"]


def test_nothing_is_imported_of_huggingface_hub(hub, cache, quants):
    """What is stored is decided on without huggingface_hub and without an HTTP stack."""
    hub.add_repo(REPO, quants)
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    script = (
        "import sys; from pathlib import Path\n"
        "from qrun.hub_settings import HubSettings; from qrun.names import parse_model\n"
        "from qrun.source_stored import StoredSource\n"
        "cache = Path(sys.argv[1]); source = StoredSource(HubSettings(cache, cache, cache))\n"
        "found = source.find(parse_model('Tiny-1B-Instruct')); source.local_path(found.candidates[0])\n"
        "print(len(found.candidates), sorted({'huggingface_hub', 'httpx', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, cache], check=True, capture_output=True, text=True)

    assert done.stdout.split(maxsplit=1) == ["2", "[]\n"]


def test_every_branch_is_candidates_of_its_own(hub, cache, quants):
    """EXL2 keeps one width a branch; each candidate says the branch it was read from."""
    q8, q4 = quants.items()
    hub.add_repo(REPO, dict([q8]), branches={"4_25": dict([q4])})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    snapshot_download(REPO, revision="4_25", endpoint=hub.endpoint, cache_dir=cache)

    found = find(cache, REPO)

    assert [(one.ref, one.quant) for one in found.candidates] == [("main", "Q8_0"), ("4_25", "Q4_0")]
    assert len({one.revision for one in found.candidates}) == 2


def test_a_revision_is_a_branch_a_commit_or_its_start(hub, cache, quants):
    """Each names that snapshot alone; what is not stored is refused with what is."""
    q8, q4 = quants.items()
    main = hub.add_repo(REPO, dict([q8]), branches={"4_25": dict([q4])})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    snapshot_download(REPO, revision="4_25", endpoint=hub.endpoint, cache_dir=cache)

    named = {text: find(cache, f"{REPO}@{text}").candidates for text in ("main", main, main[:7], "4_25")}

    assert {text: [one.quant for one in found] for text, found in named.items()} == {
        "main": ["Q8_0"],
        main: ["Q8_0"],
        main[:7]: ["Q8_0"],
        "4_25": ["Q4_0"],
    }
    with pytest.raises(ModelNotFound, match=r"@nowhere.*Stored are the revisions main, 4_25"):
        find(cache, f"{REPO}@nowhere")


def test_a_branch_that_moved_on_hides_nothing_that_is_whole(hub, cache, quants):
    """Another tool fetched only the card of a newer commit: the weights of the older one are still candidates."""
    first = hub.add_repo(REPO, {**quants, "README.md": b"one"})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    second = hub.replace_files(REPO, {**quants, "README.md": b"two"})
    hf_hub_download(REPO, "README.md", endpoint=hub.endpoint, cache_dir=cache)
    hf_hub_download(REPO, "Tiny-1B-Instruct-Q8_0.gguf", endpoint=hub.endpoint, cache_dir=cache)

    found = find(cache, REPO)

    assert [(one.revision, one.ref, one.quant) for one in found.candidates] == [
        (second, "main", "Q8_0"),
        (first, None, "Q4_0"),
    ]


def test_a_set_with_a_missing_shard_is_incomplete_and_not_stored(hub, cache, tmp_path, quants):
    """It stands among the candidates with its defect, and hides the whole quant beside it not at all."""
    parts = shards(tmp_path / "made")
    hub.add_repo(REPO, {**parts, "Tiny-1B-Instruct-Q4_0.gguf": quants["Tiny-1B-Instruct-Q4_0.gguf"]})
    for name in (min(parts), "Tiny-1B-Instruct-Q4_0.gguf"):
        hf_hub_download(REPO, name, endpoint=hub.endpoint, cache_dir=cache)

    found = {one.quant: one for one in find(cache, REPO).candidates}

    assert (found["Q4_0"].stored, found["Q4_0"].defect) == (True, None)
    assert not found["Q8_0"].stored
    assert found["Q8_0"].defect is not None
    assert found["Q8_0"].defect.reason == "incomplete"
    assert "shard 2 of 2 is missing" in found["Q8_0"].defect.detail


def test_a_link_whose_bytes_are_gone_is_damage_that_names_its_place(hub, cache, quants):
    """All that is there of the model leads nowhere: exit 8 with the path."""
    hub.add_repo(REPO, dict(list(quants.items())[:1]))
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    shutil.rmtree(cache / "models--quanter--Tiny-1B-Instruct-GGUF" / "blobs")

    with pytest.raises(FileDamaged, match=r"snapshots.*Q8_0.gguf is damaged: it is a link that leads nowhere"):
        find(cache, REPO)


def test_a_file_that_shrank_after_the_choice_is_not_handed_on(hub, cache, quants):
    """The size that was decided on is looked at again."""
    hub.add_repo(REPO, quants)
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)
    one = find(cache, REPO).candidates[0]
    blob = source(cache).local_path(one).resolve()
    blob.write_bytes(blob.read_bytes()[:-1])

    with pytest.raises(FileDamaged, match="when it was chosen"):
        source(cache).local_path(one)


def test_an_empty_cache_says_how_to_fill_it(cache):
    """No folder, or none of a model in it: exit 3 and what to do."""
    with pytest.raises(ModelNotFound, match=r"nothing is stored.*qrun pull"):
        find(cache, "Tiny-1B")
    (cache / "datasets--acme--Tiny-1B" / "snapshots" / "0").mkdir(parents=True)
    with pytest.raises(ModelNotFound, match="nothing is stored"):
        find(cache, "Tiny-1B")


def test_a_name_that_is_not_stored_gets_the_nearest(hub, cache, quants):
    """Exit 3 with what is there."""
    hub.add_repo(REPO, {**quants, "README.md": CARD})
    snapshot_download(REPO, endpoint=hub.endpoint, cache_dir=cache)

    with pytest.raises(ModelNotFound, match="Did you mean acme/Tiny-1B-Instruct"):
        find(cache, "Tinny-1B-Instruct")


def test_a_repo_without_weights_is_no_model(hub, cache):
    """Another tool keeps a repo's tokenizer: the name is known, and there is nothing to run."""
    hub.add_repo("acme/Tiny-1B-Instruct", {"tokenizer.json": b"{}", "config.json": b"{}"})
    snapshot_download("acme/Tiny-1B-Instruct", endpoint=hub.endpoint, cache_dir=cache)

    with pytest.raises(NotAModel, match="no GGUF file"):
        find(cache, "Tiny-1B-Instruct")


def test_the_files_of_transformers_are_a_candidate_too(hub, cache):
    """A base as its own tools stored it: config.json and safetensors."""
    weights = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
    hub.add_repo("acme/Tiny-1B", {"config.json": b'{"torch_dtype": "bfloat16"}', "model.safetensors": weights})
    snapshot_download("acme/Tiny-1B", endpoint=hub.endpoint, cache_dir=cache)

    (one,) = find(cache, "acme/Tiny-1B").candidates

    assert (one.format, one.quant, one.ref, one.stored) == ("safetensors", "bf16", "main", True)


def test_a_cache_that_may_not_be_read_is_one_line(cache, monkeypatch):
    """A folder without permission is a failure that names it."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("qrun.store_scan.os.scandir", refuse)
    with pytest.raises(Failure, match=f"{cache} cannot be read: Permission denied"):
        find(cache, "Tiny-1B")
