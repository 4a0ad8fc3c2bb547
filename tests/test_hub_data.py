import json

import httpx2
import pytest
from huggingface_hub import HfApi, close_session
from huggingface_hub.errors import GatedRepoError

from hub_data import listing
from hub_data_files import n_params, text_config
from hub_emulator import HubEmulator
from hub_emulator_blobs import Blob
from qrun.gguf_header import read_header
from qrun.shape import shape_of

LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"


@pytest.fixture
def api(listing_hub):
    yield HfApi(endpoint=listing_hub.endpoint, token=False)
    close_session()


def _ids(found):
    return {model.id for model in found}


def _config(api, repo_id, revision="main"):
    return httpx2.get(f"{api.endpoint}/{repo_id}/resolve/{revision}/config.json").json()


def test_the_whole_listing_is_served(api):
    """Every quant repo, every base and every repo of another format is listed, with the names of its files."""
    found = {model.id: model for model in api.list_models(expand=["siblings", "tags", "downloads"])}

    assert len(found) == len(listing()) > 1700
    assert sum(len(model.siblings) for model in found.values()) > 17_000
    assert {LLAMA, "bartowski/Llama-3.2-1B-Instruct-GGUF", "turboderp/Qwen3-8B-exl3"} <= set(found)
    assert found[LLAMA].downloads > found["lmstudio-community/Meta-Llama-3-8B-Instruct-GGUF"].downloads > 0


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ("all", {"MaziyarPanahi", "bartowski", "mlx-community"}),
        ("old", {"bartowski", "mlx-community"}),
        ("none", set()),
    ],
)
def test_relations_are_told_by_those_who_fill_in_their_cards(tags, told):
    """With "all" every labelled quant names its base, with "old" those of the newer publishers, with "none" nobody."""
    relation = "base_model:quantized:meta-llama/Llama-3.2-1B-Instruct"
    with HubEmulator() as hub:
        hub.add_listing(tags=tags)
        found = _ids(HfApi(endpoint=hub.endpoint, token=False).list_models(filter=relation))
        close_session()

    assert {repo_id.partition("/")[0] for repo_id in found} == told


def test_copies_stand_under_other_owners():
    """A listing of thousands is the same repos again, under owners of their own."""
    quants = sum(not listed.is_base for listed in listing())
    with HubEmulator() as hub:
        hub.add_listing(copies=2)

        assert len(hub.shelf.repos) == len(listing()) + 2 * quants > 4000
        assert "unsloth-copy2/Llama-3.1-8B-Instruct-GGUF" in hub.shelf.repos


def test_a_gated_base_does_not_close_its_quants(api):
    """The bases of Meta and Google are gated; the quants of others carry the same config openly."""
    assert api.model_info(LLAMA, files_metadata=True).gated == "manual"
    with pytest.raises(GatedRepoError):
        api.auth_check(LLAMA)
    config = _config(api, "mlx-community/Meta-Llama-3-8B-Instruct-4bit")

    assert (config["num_hidden_layers"], config["num_key_value_heads"]) == (32, 8)
    assert config["quantization"] == {"group_size": 64, "bits": 4}


def test_branches_hold_the_widths_of_an_exl2_repo(api):
    """Main has no weights; each branch has its own, with a config that tells its bits."""
    repo_id = "turboderp/gemma-2-27b-it-exl2"
    names = {branch.name for branch in api.list_repo_refs(repo_id).branches}
    info = api.model_info(repo_id, revision="4.0bpw", files_metadata=True)
    weights = sum(file.size for file in info.siblings if file.rfilename.endswith(".safetensors"))

    assert names == {"main", "3.0bpw", "3.5bpw", "4.0bpw", "4.5bpw", "5.0bpw", "6.0bpw", "8.0bpw"}
    assert [file.rfilename for file in api.model_info(repo_id).siblings] == ["README.md", "measurement.json"]
    assert _config(api, repo_id, revision="4.0bpw")["quantization_config"]["bits"] == 4.0
    assert 13.0e9 < weights < 14.5e9


def test_an_old_id_leads_to_the_base(api):
    """Ids that the Hub redirects are redirected here."""
    assert api.model_info("meta-llama/Meta-Llama-3.1-8B-Instruct").id == "meta-llama/Llama-3.1-8B-Instruct"


@pytest.mark.parametrize(
    ("base", "billions"),
    # As the models' own cards and technical reports give them, norms and biases included.
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("meta-llama/Llama-3.3-70B-Instruct", 70.55),
        ("Qwen/Qwen2.5-7B-Instruct", 7.62),
        ("Qwen/Qwen3-30B-A3B", 30.53),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.70),
        ("google/gemma-2-9b-it", 9.24),
        ("microsoft/phi-4", 14.66),
        ("openai/gpt-oss-20b", 20.91),
    ],
)
def test_dimensions_give_the_published_number_of_parameters(base, billions):
    """The configs' dimensions are the real models': they add up to the published sizes."""
    config = next(json.loads(listed.files["config.json"]) for listed in listing() if listed.repo_id == base)

    assert n_params(config) / 1e9 == pytest.approx(billions, rel=0.002)


@pytest.mark.parametrize(
    ("repo_id", "path", "base"),
    [
        ("unsloth/Llama-3.1-8B-Instruct-GGUF", "Llama-3.1-8B-Instruct-Q4_K_M.gguf", "meta-llama/Llama-3.1-8B-Instruct"),
        ("Qwen/Qwen3-30B-A3B-GGUF", "Qwen3-30B-A3B-Q5_K_M.gguf", "Qwen/Qwen3-30B-A3B"),
        ("unsloth/gemma-3-27b-it-GGUF", "gemma-3-27b-it-Q2_K.gguf", "google/gemma-3-27b-it"),
        ("unsloth/phi-4-GGUF", "phi-4-Q6_K.gguf", "microsoft/phi-4"),
        ("bartowski/Qwen2.5-14B-Instruct-GGUF", "Qwen2.5-14B-Instruct-IQ4_XS.gguf", "Qwen/Qwen2.5-14B-Instruct"),
    ],
)
def test_a_header_has_the_dimensions_of_the_base(headed, repo_id, path, base):
    """A header that is read by range tells the published dimensions, and tensors that fill the file."""
    found = {listed.repo_id: listed for listed in headed}
    config = text_config(json.loads(found[base].files["config.json"]))
    blob = found[repo_id].files[path]
    header = read_header(_reader(blob), blob.size_bytes)
    (shape,) = shape_of([header])[:1]

    assert shape.n_layer == config["num_hidden_layers"]
    assert header.metadata[f"{header.metadata['general.architecture']}.embedding_length"] == config["hidden_size"]
    assert 4 << 20 < header.data_offset < 12 << 20
    assert blob.size_bytes == header.file_size_bytes


def test_headers_stand_where_they_come_near_the_published_size(headed):
    """Most files get a header, and their sizes hardly differ from the published ones, which are rounded to 0.1 GiB."""
    sizes = {(listed.repo_id, path): size for listed in listing() for path, size in listed.files.items()}
    made = [(listed.repo_id, path, held) for listed in headed for path, held in listed.files.items()]
    gaps = sorted(
        abs(held.size_bytes / sizes[repo_id, path] - 1) for repo_id, path, held in made if isinstance(held, Blob)
    )

    assert len(gaps) > 550
    assert gaps[len(gaps) // 2] < 0.01
    assert gaps[-1] < 0.15  # a shard; a whole model stays within a tenth


def test_a_split_model_has_a_header_in_every_part(headed):
    """Each shard tells its number, and together they hold every tensor once."""
    files = next(one.files for one in headed if one.repo_id == "unsloth/Qwen3-235B-A22B-GGUF")
    shards = [files[path] for path in sorted(files) if path.startswith("Q4_K_M/")]
    headers = [read_header(_reader(blob), blob.size_bytes) for blob in shards]
    names = [tensor.name for header in headers for tensor in header.tensors]

    assert [header.metadata["split.no"] for header in headers] == list(range(len(shards)))
    assert len(names) == len(set(names)) == headers[0].metadata["split.tensors.count"]
    assert "general.architecture" not in headers[1].metadata


@pytest.fixture(scope="module")
def headed():
    return listing(headers=True)


def _reader(blob):
    def read(offset, n):
        return b"".join(blob.pieces(offset, min(offset + n, blob.size_bytes)))

    return read
