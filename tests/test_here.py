"""The decision with everything around it: the Hub is asked once, what was decided is kept, and changes are told."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest
from huggingface_hub import hf_hub_download

import qrun.bandwidth
import qrun.here
from candidates import cpu_only
from hub_emulator import HubEmulator
from qrun.config import read_config
from qrun.errors import PinnedTooLarge, UsageError
from qrun.here import resolve_here
from qrun.hub_errors import DiskFull, HubUnreachable
from qrun.pins import PinStore
from qrun.request import Request
from qrun.store import Store
from tiny_hub import MODEL, REPO, environ_of, stock, two_quants

MACHINE = """\
name = "test"
os = "linux"
arch = "x86_64"
cpu_cores = 4
ram_bytes = 17179869184
"""


@pytest.fixture
def files(tmp_path):
    """Two quants of the model as the repo has them."""
    return two_quants(tmp_path / "files")


@pytest.fixture
def hub(files):
    """A Hub with a base and its quants."""
    with HubEmulator() as hub:
        stock(hub, files)
        yield hub


@pytest.fixture
def config(hub, tmp_path):
    """The settings of a user who has nothing yet."""
    return read_config(environ_of(hub, tmp_path))


@pytest.fixture
def machine(tmp_path):
    """Writes a hardware file of that much free RAM."""

    def write(free_bytes=None):
        path = tmp_path / "machine.toml"
        path.write_text(MACHINE + (f"ram_free_bytes = {free_bytes}\n" if free_bytes else ""))
        return path

    return write


@pytest.fixture
def decide(config, machine):
    """Decides for the test's machine."""
    made = []

    def run(model=MODEL, *, free_bytes=None, goal="balanced", **options):
        made.append(
            resolve_here(Request(model, goal=goal), config=config, hardware_file=machine(free_bytes), **options)
        )
        return made[-1]

    yield run
    for here in made:
        here.close()


def chosen(here):
    return here.resolution.require().candidate


def test_a_name_is_decided_by_the_hub_and_its_headers(decide, hub):
    """Commit, checksum and exact weights stand in the choice."""
    candidate = chosen(decide())

    assert candidate.repo_id == REPO
    assert candidate.revision == hub.shelf.repos[REPO].main.sha
    assert candidate.files[0].sha256
    assert candidate.weights is not None
    assert not candidate.weights.estimated


def test_the_next_same_request_asks_for_nothing(decide, hub):
    """The second decision is the first one's, without a request."""
    first = decide()
    hub.requests.clear()

    second = decide()

    assert hub.requests == []
    assert chosen(second) == chosen(first)
    assert {one.candidate.quant for one in second.resolution.rejected} == {
        one.candidate.quant for one in first.resolution.rejected
    }


@pytest.mark.parametrize("options", [{"goal": "quality"}, {"model": "tiny 1b instruct"}])
def test_another_request_is_decided_by_itself(decide, config, options):
    """Another goal or another spelling is another question, which the cached listings may answer."""
    decide()

    decide(**options)

    assert len(list(PinStore(config.pins_dir).all())) == 2


def test_what_was_fetched_is_whole_and_found_again(decide, config, files):
    """`model_path` fetches; the file is the Hub's, and the pinned decision knows that it is stored."""
    here = decide()
    path = here.model_path()

    again = decide()

    assert path.read_bytes() == files[chosen(here).files[0].path].read_bytes()
    assert chosen(again).stored
    assert again.model_path() == path


def test_a_kept_decision_loads_nothing_of_the_hub(decide, config, machine):
    """Start-up is a feature: neither huggingface_hub nor an HTTP library is imported for it."""
    decide()
    script = (
        "import sys\n"
        "from qrun.cli.main import run_cli\n"
        f"code = run_cli(['resolve', {MODEL!r}, '--hardware', {str(machine())!r}, '--json'])\n"
        "print(code, sorted({'huggingface_hub', 'httpx', 'httpx2', 'aiohttp'} & set(sys.modules)), file=sys.stderr)\n"
    )
    folders = {"DATA": config.data_dir, "CACHE": config.cache_dir, "STATE": config.state_dir}
    environ = os.environ | {f"QRUN_{name}_DIR": str(path) for name, path in folders.items()}
    environ |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(config.hub.cache_dir)}

    done = subprocess.run([sys.executable, "-c", script], check=False, env=environ, capture_output=True, text=True)

    assert done.stderr == "0 []\n"
    assert json.loads(done.stdout)["chosen"]["repo_id"] == REPO


def test_refresh_decides_anew_and_says_that_nothing_changed(decide, hub):
    """The Hub is asked, whatever is kept."""
    decide()
    hub.requests.clear()

    here = decide(refresh=True)

    assert hub.requests
    assert here.resolution.warnings[-1] == "Decided anew: the choice is the same."


def test_refresh_says_what_changed_and_why(decide, hub, files):
    """The chosen file is gone from its repo: the other one takes its place, and the sentence says so."""
    before = chosen(decide())
    hub.replace_files(REPO, {path: file for path, file in files.items() if path != before.files[0].path})

    here = decide(refresh=True)

    told = here.resolution.warnings[-1]
    assert f"takes the place of {before.quant} of {REPO}" in told
    assert "does not offer it any more" in told
    assert chosen(decide()) == chosen(here)  # what is decided anew is kept


def test_without_refresh_a_moved_repo_changes_nothing(decide, hub, files):
    """The commit that was decided on is the one that is fetched, though the branch stands elsewhere now."""
    before = decide()
    hub.replace_files(REPO, dict.fromkeys(files, b"other"))

    after = decide()

    assert chosen(after).revision == chosen(before).revision
    assert after.model_path().read_bytes() == files[chosen(after).files[0].path].read_bytes()


def test_an_older_commit_that_is_fetched_does_not_turn_the_branch_back(decide, hub, files, config):
    """Another tool has fetched a newer commit meanwhile: what the pin names comes beside it, and `main` stays."""
    here = decide()

    newer = hub.replace_files(REPO, files | {"README.md": b"# New\n"})
    cache = config.hub.cache_dir
    hf_hub_download(REPO, "README.md", endpoint=hub.endpoint, cache_dir=cache)

    kept = decide()
    path = kept.model_path()

    assert chosen(kept).revision == chosen(here).revision
    assert chosen(kept).revision in str(path)
    assert (cache / f"models--{REPO.replace('/', '--')}" / "refs" / "main").read_text() == newer


def test_a_new_decision_is_left_to_the_caller_to_keep(decide, hub, files):
    """`pull --update` fetches first: until then the old decision stands."""
    before = chosen(decide())
    hub.replace_files(REPO, {path: file for path, file in files.items() if path != before.files[0].path})

    fresh = decide(refresh=True, remember=False)
    still = chosen(decide())
    fresh.remember()

    assert still.revision == before.revision
    assert chosen(decide()) == chosen(fresh)


def test_offline_a_stored_decision_stands(decide, hub):
    """Pinned and stored: no request is made, and none is needed."""
    decide().model_path()
    hub.requests.clear()

    here = decide(offline=True)

    assert here.model_path().is_file()
    assert hub.requests == []


def test_offline_another_spelling_finds_what_is_stored(decide, hub):
    """There is no pin for that text, but there is the file."""
    fetched = chosen(decide())
    decide().model_path()
    hub.requests.clear()

    here = decide("tiny 1b instruct", offline=True)

    assert chosen(here).files[0].path == fetched.files[0].path
    assert chosen(here).revision == fetched.revision
    assert hub.requests == []


def test_offline_what_was_decided_and_not_fetched_gives_way_to_what_is_stored(decide, config):
    """Offline nothing can be fetched, so the pin is no use: the stored quant is."""
    here = decide()
    other = next(one.candidate for one in here.resolution.alternatives)
    here.source.local_path(other)

    offline = decide(offline=True)

    assert chosen(offline).files[0].path == other.files[0].path
    assert decide().resolution.chosen.candidate.files[0].path == chosen(here).files[0].path  # the pin stands


def test_offline_with_nothing_stored_is_unreachable(decide):
    """Exit 5: the model may exist, but nobody may be asked."""
    here = decide(offline=True)

    assert isinstance(here.resolution.error, HubUnreachable)
    assert "offline was asked for" in str(here.resolution.error)


def test_offline_a_download_that_was_broken_off_is_unreachable(decide, hub):
    """Exit 5 too: what is there in part can only be had whole from the Hub."""
    decided = decide()
    hub.fault("reset", path="^/cdn/")
    with pytest.raises(HubUnreachable):
        decided.model_path()

    here = decide(offline=True)

    assert isinstance(here.resolution.error, HubUnreachable)
    assert "offline was asked for" in str(here.resolution.error)


def test_offline_nothing_is_decided_anew(decide):
    """The two options contradict each other: exit 2, and what is kept stays."""
    decide()

    here = decide(offline=True, refresh=True)

    assert isinstance(here.resolution.error, UsageError)
    assert chosen(decide())


@pytest.mark.parametrize("offline", [False, True])
def test_a_file_that_ollama_holds_is_used_in_place(config, machine, files, tmp_path, offline):
    """The chosen bytes are on this disk under another tool's name: nothing is fetched, nothing of it is changed."""
    request = Request(MODEL)
    with closing(resolve_here(request, config=config, hardware_file=machine())) as here:
        file = chosen(here).files[0]
    blob = tmp_path / "ollama" / "blobs" / f"sha256-{file.sha256}"
    blob.parent.mkdir(parents=True)
    shutil.copy(files[file.path], blob)
    manifest = tmp_path / "ollama" / "manifests" / "registry" / "library" / "tiny" / "latest"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{file.sha256}"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    config = replace(config, places=replace(config.places, ollama=(tmp_path / "ollama",)))

    with closing(resolve_here(request, config=config, hardware_file=machine(), offline=offline)) as here:
        path = here.model_path()

    assert chosen(here).stored
    assert path == blob
    assert not list(config.hub.cache_dir.glob("models--*/blobs/*"))


def test_a_hub_that_is_down_is_unreachable_and_no_pin_is_lost(decide, hub):
    """What was decided needs no Hub; what was not is exit 5."""
    decide()
    hub.fault("reset")

    assert chosen(decide())
    assert isinstance(decide(refresh=True).resolution.error, HubUnreachable)
    assert chosen(decide())


def test_with_too_little_memory_today_the_pin_is_refused_by_name(decide):
    """The pinned file does not fit, nothing else is stored: exit 4 names it, and nothing is fetched."""
    decide()

    here = decide(free_bytes=2**31 + 1000)

    assert isinstance(here.resolution.error, PinnedTooLarge)
    assert "--refresh" in str(here.resolution.error)


def test_a_damaged_pin_is_decided_anew(decide, config):
    """A torn file costs a question to the Hub, not an error."""
    first = chosen(decide())
    pin = next(config.pins_dir.glob("*.json"))
    pin.write_text(pin.read_text()[:50])

    assert chosen(decide()) == first
    assert json.loads(pin.read_text())["pin"]["repo_id"] == REPO


def test_a_pin_that_cannot_be_written_is_a_warning(decide, config):
    """The answer is none the worse for it."""
    config.data_dir.mkdir(parents=True)
    config.pins_dir.write_text("in the way")

    here = decide()

    assert chosen(here)
    assert "could not be kept" in here.resolution.warnings[-1]


def test_a_full_disk_leaves_the_pin(decide, monkeypatch):
    """The download fails, the decision stands: the next try goes on with it."""
    here = decide()

    def full(*args, **kwargs):
        raise DiskFull("/cache")

    monkeypatch.setattr(Store, "fetch", full)
    with pytest.raises(DiskFull):
        here.model_path()

    assert chosen(decide()) == chosen(here)


def test_a_removed_file_is_fetched_again(decide, config):
    """A pin is about a choice, not about the disk: what somebody deleted comes back from the pinned commit."""
    here = decide()
    path = here.model_path()
    shutil.rmtree(config.hub.cache_dir)

    again = decide()

    assert not chosen(again).stored
    assert again.model_path() == path
    assert path.is_file()


def test_a_folder_of_repos_is_never_pinned(decide, config, files, tmp_path):
    """A look at the disk costs nothing, and what lies there may change at any time."""
    repo = tmp_path / "models" / REPO
    repo.mkdir(parents=True)
    for path, file in files.items():
        shutil.copy(file, repo / path)

    decide(models_dir=tmp_path / "models")

    assert not config.pins_dir.exists()


def test_a_request_of_the_real_machine_is_pinned_too(config):
    """Not only simulated machines: the same request here asks once."""
    request = replace(Request(MODEL), n_ctx=128)

    with closing(resolve_here(request, config=config, assume_yes=True)) as first:
        second = resolve_here(request, config=config, assume_yes=True)

    assert chosen(second) == chosen(first)
    assert any("decided on" in line for line in second.resolution.chosen.why)


@pytest.fixture
def measured(monkeypatch):
    """How often RAM was measured, at 40 GB/s each time, on a machine without GPUs where nobody else is at work."""
    asked = []
    monkeypatch.setattr(qrun.bandwidth, "measure_read_bandwidth", lambda _: asked.append(1) or 40e9)
    monkeypatch.setattr(qrun.bandwidth, "_is_busy", lambda _: False)
    monkeypatch.setattr(qrun.here, "probe_hardware", lambda **_: cpu_only(16))
    return asked


def test_ram_is_measured_once_where_the_choice_lies_in_it(config, measured):
    """A machine without GPUs is measured for its first decision; its next and its stored ones read what was kept."""
    speeds = []
    for n_ctx in (128, 128, 256):
        with closing(resolve_here(Request(MODEL, n_ctx=n_ctx), config=config, assume_yes=True)) as here:
            speeds.append(here.resolution.require().speed)
            assert here.hardware.ram_bandwidth_source == "measured"

    assert len(measured) == 1
    assert {speed.source for speed in speeds} == {"model"}


def test_a_described_machine_is_never_measured(decide, measured):
    """What a hardware file leaves open stays unknown: it is another machine."""
    here = decide()

    assert measured == []
    assert here.hardware.ram_bandwidth_bytes_per_s is None
    assert chosen(here)
