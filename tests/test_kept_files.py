"""Where a model's bytes come from: the Hub's cache, another tool, the Hub; and what is put on record of it."""

import hashlib

import pytest
from huggingface_hub import hf_hub_download

from qrun.errors import UnsafeFile
from qrun.foreign_files import Places
from qrun.hub_client import HubClient
from qrun.hub_errors import HubUnreachable
from qrun.hub_settings import HubSettings
from qrun.kept_files import KeptFiles
from qrun.model import Candidate, ModelFile
from qrun.store import Store
from qrun.store_ledger import Entry, Ledger

REPO = "quanter/Tiny-1B-GGUF"
PARTS = {f"Tiny-1B-Q8_0-0000{n}-of-00002.gguf": b"GGUF" + bytes([n]) * 5000 for n in (1, 2)}
FIRST, SECOND = PARTS


@pytest.fixture
def ledger(tmp_path):
    """An empty record."""
    return Ledger(tmp_path / "stored")


@pytest.fixture
def settings(hub, tmp_path):
    """An empty cache and the test's Hub."""
    return HubSettings(tmp_path / "hub", tmp_path / "listings", tmp_path / "token", hub.endpoint, retry_s=0.2)


@pytest.fixture
def lmstudio(tmp_path):
    """LM Studio's home, with the two shards."""
    folder = tmp_path / "lm" / "models" / REPO
    folder.mkdir(parents=True)
    for name, content in PARTS.items():
        (folder / name).write_bytes(content)
    return tmp_path / "lm"


@pytest.fixture
def client(settings):
    """The Hub's client, closed at the end."""
    made = HubClient(settings)
    yield made
    made.close()


def candidate(commit: str) -> Candidate:
    """The two shards at a commit."""
    files = tuple(ModelFile(path, len(of), hashlib.sha256(of).hexdigest()) for path, of in PARTS.items())
    return Candidate(REPO, commit, "quanter", "acme/Tiny-1B", files, "gguf", "Q8_0", ref="main")


def kept(settings, client, ledger, *homes) -> KeptFiles:
    """All three, at a clock that stands still."""
    return KeptFiles(Store(settings, client), Places(lmstudio=homes), ledger, clock=lambda: 5.0)


def test_what_is_nowhere_is_fetched_and_put_on_record(hub, settings, client, ledger):
    """The second time it is on this disk: no request, and no second entry."""
    commit = hub.add_repo(REPO, PARTS)
    files = kept(settings, client, ledger)
    assert files.path_of(candidate(commit)) is None

    path = files.path(candidate(commit))
    hub.requests.clear()

    assert path.read_bytes() == PARTS[FIRST]
    assert files.path(candidate(commit)) == files.path_of(candidate(commit)) == path
    assert hub.requests == []
    assert ledger.entries() == (Entry(REPO, commit, "main", (FIRST, SECOND), 5.0),)


def test_only_what_qrun_fetched_is_its_own(hub, settings, client, ledger):
    """The first shard was another tool's: prune must never count it as ours."""
    commit = hub.add_repo(REPO, PARTS)
    hf_hub_download(REPO, FIRST, endpoint=hub.endpoint, cache_dir=settings.cache_dir)

    kept(settings, client, ledger).path(candidate(commit))

    assert [entry.paths for entry in ledger.entries()] == [(SECOND,)]


def test_another_tool_s_files_come_before_a_download(hub, settings, client, ledger, lmstudio):
    """Used in place: nothing is asked of the Hub, nothing is copied, and the record says whose they are."""
    commit = hub.add_repo(REPO, PARTS)
    hub.requests.clear()
    files = kept(settings, client, ledger, lmstudio)

    path = files.path(candidate(commit))

    folder = lmstudio / "models" / REPO
    assert path == files.path_of(candidate(commit)) == folder / FIRST
    assert hub.requests == []
    assert not settings.cache_dir.exists()
    (entry,) = ledger.entries()
    assert (entry.tool, entry.held_at) == ("LM Studio", (str(folder / FIRST), str(folder / SECOND)))


def test_the_cache_comes_before_another_tool(hub, settings, client, ledger, lmstudio):
    """What is stored whole is verified; it is preferred."""
    commit = hub.add_repo(REPO, PARTS)
    stored = kept(settings, client, ledger).path(candidate(commit))

    assert kept(settings, client, ledger, lmstudio).path(candidate(commit)) == stored


def test_offline_another_tool_s_files_serve(hub, settings, ledger, lmstudio):
    """Without a Hub what is on this disk runs, and what is nowhere says so."""
    commit = hub.add_repo(REPO, PARTS)

    assert kept(settings, None, ledger, lmstudio).path(candidate(commit)).parent == lmstudio / "models" / REPO
    with pytest.raises(HubUnreachable, match="not stored"):
        kept(settings, None, ledger).path(candidate(commit))


def test_a_record_that_cannot_be_written_costs_no_model(hub, settings, client, tmp_path):
    """The data folder is a file: the bytes come all the same."""
    commit = hub.add_repo(REPO, PARTS)
    (tmp_path / "file").write_text("")

    assert kept(settings, client, Ledger(tmp_path / "file" / "stored")).path(candidate(commit)).is_file()


def test_a_name_that_leaves_the_store_is_refused(settings, ledger):
    """Whatever is on this disk already."""
    escaping = Candidate(
        REPO, "1" * 40, None, "Tiny", (ModelFile("../../x.gguf", 4, "0" * 64),), "gguf", "Q8_0", ref="main"
    )

    with pytest.raises(UnsafeFile):
        kept(settings, None, ledger).path(escaping)
