"""`qrun show`: what a model is and which quants there are of it, from the Hub, the store and the disk."""

import json
import shutil

import pytest

from hub_emulator import HubEmulator
from hub_sources import config_bytes, find
from qrun.cli.main import run_cli
from qrun.config import read_config
from qrun.errors import QuantNotFound, UsageError
from qrun.here import resolve_here
from qrun.hub_errors import HubUnreachable
from qrun.model import LayerShape, ModelShape
from qrun.request import Request
from qrun.show import kv_cache_bytes_per_token, show_model
from tiny_gguf import write_tiny_gguf

BASE = "acme/Tiny-1B-Instruct"
REPO = "someone/Tiny-1B-Instruct-GGUF"
MODEL = "Tiny-1B-Instruct"
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
CARD = b"---\nlicense: mit\nbase_model: acme/Tiny-1B-Instruct\nbase_model_relation: quantized\n---\n# Tiny\n"
KEYS = [
    "schema",
    "model",
    "base_model",
    "repo_id",
    "gated",
    "license",
    "downloads",
    "last_modified",
    "architecture",
    "chat_template",
    "quants",
    "warnings",
    "error",
]
# Of what `write_tiny_gguf` writes: 2 layers of 2 KV heads of 16, keys and values, two bytes each.
TINY_KV_BYTES = 2 * 2 * (16 + 16) * 2


@pytest.fixture
def files(tmp_path):
    """Two quants of the model, with a chat template."""
    keys = {"tokenizer__chat_template": TEMPLATE}
    return {
        f"{MODEL}-{quant}.gguf": write_tiny_gguf(
            tmp_path / "files" / f"{quant}.gguf", tensor_type=quant, file_type=kind, **keys
        )
        for quant, kind in (("Q4_0", 2), ("Q8_0", 7))
    }


@pytest.fixture
def hub(files):
    """A Hub with a base of a known licence and its quants."""
    with HubEmulator() as hub:
        hub.add_repo(BASE, {"config.json": config_bytes()}, tags=["license:apache-2.0"], downloads=1000)
        hub.add_repo(REPO, files, base_model=BASE, relation="quantized", downloads=100, tags=["license:mit"])
        yield hub


@pytest.fixture
def environ(hub, tmp_path):
    """The variables of a user who has nothing yet."""
    folders = {f"QRUN_{name}_DIR": str(tmp_path / name.lower()) for name in ("DATA", "CACHE", "STATE")}
    return folders | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "QRUN_HUB_RETRY_S": "0.2"}


@pytest.fixture
def config(environ):
    """Their settings."""
    return read_config(environ)


@pytest.fixture
def qrun(environ, monkeypatch, capsys):
    """Runs `qrun show` in this process; gives exit code, stdout and stderr."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    def run(*args):
        capsys.readouterr()
        code = run_cli(["show", *args])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def models(files, tmp_path):
    """A folder of repos with the quants and their card."""
    repo = tmp_path / "models" / REPO
    repo.mkdir(parents=True)
    for path, file in files.items():
        shutil.copy(file, repo / path)
    (repo / "README.md").write_bytes(CARD)
    return tmp_path / "models"


def asked(hub):
    """The requests so far, those to the storage that a file's address leads on to left out."""
    return [one for one in hub.requests if not one.path.startswith("/cdn/")]


def test_a_base_is_shown_with_its_card_and_its_quants(config):
    """Card of the base, dimensions by llama.cpp's names, the template of a quant's header, the larger quant first."""
    shown = show_model(MODEL, config=config)

    assert (shown.card.repo_id, shown.card.gated, shown.card.license) == (BASE, False, "apache-2.0")
    assert (shown.card.downloads, shown.card.last_modified) == (1000, "2026-01-01T00:00:00.000Z")
    assert shown.shape is not None
    assert (shown.shape.architecture, shown.shape.n_ctx_train, shown.shape.n_vocab) == ("llama", 256, 96)
    assert kv_cache_bytes_per_token(shown.shape) == TINY_KV_BYTES
    assert (shown.template.text, shown.template.repo_id) == (TEMPLATE, REPO)
    assert [one.quant for one in shown.quants] == ["Q8_0", "Q4_0"]
    assert all(one.files[0].sha256 for one in shown.quants)


def test_the_hub_is_asked_for_two_things_more_than_a_decision_asks(hub, config, tmp_path):
    """One card and one header; nothing is kept, and nothing fetched."""
    find(hub, tmp_path / "other", MODEL)
    found = len(asked(hub))
    hub.requests.clear()

    show_model(MODEL, config=config)

    assert len(asked(hub)) <= found + 2
    assert not config.pins_dir.exists()
    assert not config.hub.cache_dir.exists()


def test_a_gated_base_is_shown_with_its_open_quants(hub, files, config):
    """The gate is told, the licence is the quants' where the base tells none, and the template is an open quant's."""
    weights = {"config.json": config_bytes(), "model.safetensors": b"\0" * 4000, "tokenizer_config.json": b"{}"}
    hub.add_repo("acme/Closed-2B", weights, gated="manual", token="hf_readers")
    quants = {path.replace("Tiny-1B-Instruct", "Closed-2B"): file for path, file in files.items()}
    hub.add_repo(
        "someone/Closed-2B-GGUF", quants, base_model="acme/Closed-2B", relation="quantized", tags=["license:gemma"]
    )

    shown = show_model("acme/Closed-2B", config=config)

    assert (shown.card.repo_id, shown.card.gated, shown.card.license) == ("acme/Closed-2B", True, "gemma")
    assert (shown.template.text, shown.template.repo_id) == (TEMPLATE, "someone/Closed-2B-GGUF")
    closed = [one for one in shown.quants if one.defect]
    assert [(one.repo_id, one.defect.reason) for one in closed] == [("acme/Closed-2B", "access_denied")]
    assert {one.quant for one in shown.quants if not one.defect} == {"Q8_0", "Q4_0"}


def test_a_quants_repo_is_shown_alone(config):
    """Asked for by its id, the card is its own."""
    shown = show_model(REPO, config=config)

    assert (shown.card.repo_id, shown.card.license, shown.card.downloads) == (REPO, "mit", 100)
    assert shown.base_model == BASE
    assert {one.repo_id for one in shown.quants} == {REPO}


def test_without_a_gguf_the_template_is_that_of_a_copy(hub, config):
    """Of the templates in a tokenizer_config.json the one named default counts."""
    told = {"chat_template": [{"name": "tools", "template": "no"}, {"name": "default", "template": TEMPLATE}]}
    copy = {
        "config.json": config_bytes(),
        "model.safetensors": b"\0" * 4000,
        "tokenizer_config.json": json.dumps(told).encode(),
    }
    hub.add_repo("acme/Plain-3B", copy)

    shown = show_model("acme/Plain-3B", config=config)

    assert shown.template.text == TEMPLATE
    assert (shown.template.repo_id, shown.template.path) == ("acme/Plain-3B", "tokenizer_config.json")


def test_a_quant_behind_the_colon_is_shown_alone(config):
    """One that is not there is exit 3 with those that are, as `resolve` refuses it."""
    shown = show_model(f"{MODEL}:Q4_0", config=config)

    assert [one.quant for one in shown.quants] == ["Q4_0"]
    with pytest.raises(QuantNotFound, match="Q4_0, Q8_0"):
        show_model(f"{MODEL}:Q5_K_M", config=config)


def test_what_is_stored_is_told_and_is_what_offline_shows(hub, config):
    """Offline nothing is asked: what lies in the cache is shown with its template, what the Hub alone knows is open."""
    here = resolve_here(Request(MODEL), config=config, assume_yes=True)
    here.model_path()
    here.close()
    stored = here.resolution.require().candidate.quant

    online = show_model(MODEL, config=config)
    hub.requests.clear()
    offline = show_model(MODEL, config=config, offline=True)

    assert [one.quant for one in online.quants if one.stored] == [stored]
    assert [(one.quant, one.stored) for one in offline.quants] == [(stored, True)]
    assert offline.template.text == TEMPLATE
    assert (offline.card.gated, offline.card.downloads) == (None, None)
    assert hub.requests == []


def test_offline_what_is_not_stored_is_unreachable(config):
    """As in a decision: exit 5, and to ask anew without asking is exit 2."""
    with pytest.raises(HubUnreachable, match="offline was asked for"):
        show_model(MODEL, config=config, offline=True)
    with pytest.raises(UsageError):
        show_model(MODEL, config=config, offline=True, refresh=True)


def test_a_folder_of_repos_is_shown_from_its_files(hub, models, config):
    """Headers and READMEs tell it all; the Hub is not asked."""
    shown = show_model(MODEL, config=config, models_dir=models)

    assert (shown.card.repo_id, shown.card.license, shown.card.gated) == (BASE, "mit", None)
    assert (shown.template.text, shown.template.repo_id) == (TEMPLATE, REPO)
    assert [(one.quant, one.stored) for one in shown.quants] == [("Q8_0", True), ("Q4_0", True)]
    assert hub.requests == []


def test_a_file_is_shown_alone(files, config):
    """By its path: no repo, no card; a header without a template says that there is none."""
    path = write_tiny_gguf(files[f"{MODEL}-Q8_0.gguf"].parent / "Other-1B-Q8_0.gguf")

    shown = show_model(str(path), config=config)

    assert (shown.card.repo_id, shown.card.license) == (None, None)
    assert (shown.template.present, shown.template.text) == (False, None)
    assert [one.files[0].path for one in shown.quants] == [str(path)]


def test_a_folder_of_safetensors_is_shown_by_its_config(tmp_path, config):
    """The config.json beside the weights tells the dimensions, and a chat_template.jinja comes before all else."""
    folder = tmp_path / "Plain-3B"
    folder.mkdir()
    (folder / "config.json").write_bytes(config_bytes())
    (folder / "model.safetensors").write_bytes(b"\0" * 60_000)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "no"}')

    shown = show_model(str(folder), config=config)

    assert shown.shape is not None
    assert (shown.shape.architecture, shown.shape.n_layer) == ("llama", 2)
    assert shown.template.text == TEMPLATE
    assert [one.format for one in shown.quants] == ["safetensors"]


def test_full_windows_cost_no_further_memory():
    """Of a model whose second layer slides, a further token is kept by the first alone."""
    whole, sliding = LayerShape(8, 128, 128), LayerShape(8, 128, 128, window=1024)
    shape = ModelShape("gemma3", 2, 1024, 8, 4096, 1000, 8192, (whole, sliding))

    per_token = kv_cache_bytes_per_token(shape)

    assert per_token == 8 * (128 + 128) * 2


def test_the_table_shows_a_dash_for_what_is_unknown(qrun, models):
    """People read a heading of facts and one row for each quant."""
    code, out, err = qrun(MODEL, "--models-dir", str(models))
    facts = dict(line.split(maxsplit=1) for line in out.splitlines()[:4])
    rows = [line.split() for line in out.splitlines() if line.startswith("gguf")]

    assert (code, err) == (0, "")
    assert facts["Model"] == BASE
    assert facts["Licence"] == "mit"
    assert "Downloads       -" in out.splitlines()
    assert f"KV cache        {TINY_KV_BYTES} bytes a token (f16)" in out.splitlines()
    assert [row[1] for row in rows] == ["Q8_0", "Q4_0"]
    assert all("yes" in row and REPO in row for row in rows)


def test_the_json_has_every_key_in_the_documented_order(qrun):
    """Programs find the facts, each file with its checksum, and the template's text."""
    code, out, _ = qrun(MODEL, "--json")
    document = json.loads(out)
    quant = document["quants"][0]

    assert code == 0
    assert list(document) == KEYS
    assert (document["model"], document["base_model"], document["error"]) == (MODEL, BASE, None)
    assert document["architecture"]["kv_cache_bytes_per_token"] == TINY_KV_BYTES
    assert document["chat_template"]["text"] == TEMPLATE
    assert (quant["quant"], quant["n_files"], quant["stored"], quant["defect"]) == ("Q8_0", 1, False, None)
    assert len(quant["files"][0]["sha256"]) == 64
    assert quant["quality"]["kld"] > 0


def test_a_name_that_is_nowhere_is_exit_3_with_the_same_keys(qrun):
    """The refusal stands on stderr, and in the document for programs."""
    code, out, err = qrun("Nothing-Like-It-9B", "--json")
    document = json.loads(out)

    assert code == 3
    assert err.startswith("qrun: error: no model named")
    assert list(document) == KEYS
    assert (document["error"]["exit"], document["error"]["name"]) == (3, "model_not_found")
    assert document["architecture"] is None


def test_the_template_alone_is_printed_as_it_stands(qrun, files):
    """So that it can be piped into a file; where there is none that is an error."""
    code, out, _ = qrun(MODEL, "--template")
    path = write_tiny_gguf(files[f"{MODEL}-Q8_0.gguf"].parent / "Other-1B-Q8_0.gguf")
    without = qrun(str(path), "--template")

    assert (code, out) == (0, TEMPLATE + "\n")
    assert without[0] == 1
    assert "has no chat template" in without[2]
