"""From a name to candidates over a real client and an emulated Hub: what is found, what never is, and at what cost."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from hub_sources import config_bytes, find, hub_source, tiny
from qrun.errors import AmbiguousModel, FileDamaged, ModelNotFound, NotAModel, UnsafeFile
from qrun.hub_errors import AccessDenied, HubUnreachable, TokenRefused
from qrun.hub_files import MOST_CALLS
from qrun.names import parse_model

BASE = "acme/Tiny-1B-Instruct"
GGUF = "quanter/Tiny-1B-Instruct-GGUF"
SPELLINGS = Path(__file__).parent / "data" / "hub_spellings.tsv"


def of_repos(found):
    """The repos that the candidates are from."""
    return {one.repo_id for one in found.candidates}


@pytest.fixture
def base(hub):
    """The base's own repo, open, with plain weights."""
    hub.add_repo(BASE, {"config.json": config_bytes(), "model.safetensors": 30000, "tokenizer.json": b"{}"})
    return hub


@pytest.fixture
def quants(base, tmp_path):
    """A repo of two quants that says what it is made from."""
    files = {
        "Tiny-1B-Instruct-Q8_0.gguf": tiny(tmp_path, "q8.gguf"),
        "Tiny-1B-Instruct-Q4_0.gguf": tiny(tmp_path, "q4.gguf", tensor_type="Q4_0", file_type=2),
        "mmproj-Tiny-1B-f16.gguf": 1000,
        "imatrix.dat": 100,
        "README.md": b"# a card",
    }
    base.add_repo(GGUF, files, base_model=BASE, relation="quantized", downloads=500)
    return base


# What is found


def test_a_base_gives_itself_and_its_quants(quants, tmp_path):
    """By relation; projectors and importance matrices are no candidates, and every file has its sum."""
    found = find(quants, tmp_path, BASE)

    by_label = {(one.format, one.quant): one for one in found.candidates}
    assert found.base_model == BASE
    assert set(by_label) == {("gguf", "Q8_0"), ("gguf", "Q4_0"), ("safetensors", "bf16")}
    one = by_label["gguf", "Q8_0"]
    assert (one.repo_id, one.publisher, one.base_model, one.ref, one.downloads) == (GGUF, "quanter", BASE, "main", 500)
    assert one.revision == quants.shelf.repos[GGUF].main.sha
    assert len(one.files[0].sha256) == 64
    assert one.last_modified.startswith("2026-01-01")
    assert one.stored is False


def test_the_shape_comes_from_one_config_for_all(quants, tmp_path):
    """The base's config.json; weights by formula have the files' bytes in all."""
    found = find(quants, tmp_path, BASE)

    assert {(one.shape.n_layer, one.shape.n_vocab) for one in found.candidates} == {(2, 96)}
    for one in found.candidates:
        weights_bytes = sum(f.size_bytes for f in one.files if f.path.endswith((".gguf", ".safetensors")))
        assert one.weights.total_bytes == weights_bytes


def test_plain_weights_bring_what_an_engine_reads_beside_them(base, tmp_path):
    """Weights first; code and pickles are never fetched."""
    more = {"model.py": b"", "chat_template.jinja": b"", "generation_config.json": b"{}", "notes.txt": b"", "x.bin": 9}
    base.replace_files(BASE, {"config.json": config_bytes(), "model.safetensors": 30000, **more})

    found = find(base, tmp_path, BASE)

    plain = next(one for one in found.candidates if not one.defect)
    paths = [file.path for file in plain.files]
    assert paths[0] == "model.safetensors"
    assert set(paths[1:]) == {"config.json", "chat_template.jinja", "generation_config.json"}


def test_older_repos_without_tags_are_found_by_name(base, tmp_path):
    """Before relations there were names; several publishers, every format."""
    q8 = tiny(tmp_path, "q8.gguf")
    base.add_repo("TheBloke/Tiny-1B-Instruct-GGUF", {"tiny-1b-instruct.Q8_0.gguf": q8})
    base.add_repo("bartowski/acme_Tiny-1B-Instruct-GGUF", {"acme_Tiny-1B-Instruct-Q8_0.gguf": q8})
    awq = config_bytes(quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128})
    base.add_repo("TheBloke/Tiny-1B-Instruct-AWQ", {"config.json": awq, "model.safetensors": 9000})

    found = find(base, tmp_path, "tiny 1b instruct")

    assert of_repos(found) == {
        BASE,
        "TheBloke/Tiny-1B-Instruct-GGUF",
        "bartowski/acme_Tiny-1B-Instruct-GGUF",
        "TheBloke/Tiny-1B-Instruct-AWQ",
    }
    assert "4bit-g128" in {one.quant for one in found.candidates}


@pytest.mark.parametrize(
    ("repo_id", "relation"),
    [
        ("tuner/Tiny-1B-Instruct-Roleplay-GGUF", "finetune"),
        ("tuner/Tiny-1B-Instruct-GGUF", "finetune"),
        ("tuner/Tiny-1B-Instruct-abliterated-GGUF", "quantized"),
        ("tuner/Tiny-1B-Instruct-Rust-GGUF", "quantized"),
        ("tuner/Tiny-1B-Instruct-Merged-GGUF", "merge"),
        ("tuner/Tiny-1B-Instruct-Lora-GGUF", "adapter"),
        ("bartowski/Tiny-1B-Instruct-abliterated-GGUF", "quantized"),
        ("tuner/Tiny-3B-Instruct-GGUF", None),
    ],
)
def test_another_model_s_quants_are_never_taken(quants, tmp_path, repo_id, relation):
    """A fine-tune, a merge, an adapter, another size: whatever their tags say."""
    tags = {"base_model": BASE, "relation": relation} if relation else {}
    quants.add_repo(repo_id, {"x-Q8_0.gguf": tiny(tmp_path, "x.gguf")}, downloads=10**6, **tags)

    assert of_repos(find(quants, tmp_path, BASE)) == {BASE, GGUF}


def test_a_known_publisher_s_odd_name_is_believed_with_its_relation(quants, tmp_path):
    """`-text` of a publisher that never fine-tunes is the same model's text part."""
    repo_id = "lmstudio-community/Tiny-1B-Instruct-odd-GGUF"
    quants.add_repo(repo_id, {"x-Q8_0.gguf": tiny(tmp_path, "x.gguf")}, base_model=BASE, relation="quantized")

    assert repo_id in of_repos(find(quants, tmp_path, BASE))


def test_a_gated_base_does_not_block_open_quants(quants, tmp_path):
    """Its own weights are refused with the reason; the shape comes from a copy's config."""
    quants.remove_repo(BASE)
    quants.add_repo(
        BASE, {"config.json": config_bytes(), "model.safetensors": 30000}, gated="manual", token="hf_theirs"
    )
    mlx = config_bytes(quantization={"bits": 4, "group_size": 64})
    quants.add_repo(
        "mlx-community/Tiny-1B-Instruct-4bit",
        {"config.json": mlx, "model.safetensors": 9000},
        base_model=BASE,
        relation="quantized",
        library="mlx",
    )

    found = find(quants, tmp_path, "Tiny-1B-Instruct")

    refused = {one.repo_id: one.defect.reason for one in found.candidates if one.defect}
    assert found.base_model == BASE
    assert refused == {BASE: "access_denied"}
    assert all(one.shape for one in found.candidates if not one.defect)


def test_a_token_opens_the_gated_base(hub, tmp_path):
    """With the token that has access its own weights are a candidate like any other."""
    hub.add_repo(BASE, {"config.json": config_bytes(), "model.safetensors": 30000}, gated="auto", token="hf_mine")

    found = find(hub, tmp_path, BASE, token="hf_mine")

    assert [(one.repo_id, one.defect) for one in found.candidates] == [(BASE, None)]


def test_a_gated_repo_that_was_asked_for_is_exit_6(hub, tmp_path):
    """With the page to accept on, whether it is the base or a quant."""
    hub.add_repo(BASE, {"config.json": config_bytes(), "model.safetensors": 30000}, gated="manual")
    hub.add_repo(GGUF, {"x-Q8_0.gguf": tiny(tmp_path, "x.gguf")}, gated="auto")

    with pytest.raises(AccessDenied) as of_quant:
        find(hub, tmp_path, GGUF)
    hub.remove_repo(GGUF)
    with pytest.raises(AccessDenied) as of_base:
        find(hub, tmp_path / "other", BASE)

    assert (of_quant.value.page, of_base.value.page) == (f"{hub.endpoint}/{GGUF}", f"{hub.endpoint}/{BASE}")


def test_a_refused_token_is_said(quants, tmp_path):
    """Exit 6: with a token that the Hub does not know even open repos are closed."""
    with pytest.raises(TokenRefused):
        find(quants, tmp_path, BASE, token="hf_expired")


# One repo alone


@pytest.mark.parametrize("text", [GGUF, GGUF.lower(), "Tiny-1B-Instruct-GGUF", f"hf.co/{GGUF}:Q8_0", f"{GGUF}@main"])
def test_a_quant_repo_s_name_is_that_repo_alone(quants, tmp_path, text):
    """Case is ignored; neither the base nor other publishers' quants come along."""
    quants.add_repo("other/Tiny-1B-Instruct-Q8_0-GGUF", {"x-Q8_0.gguf": tiny(tmp_path, "x.gguf")})

    found = find(quants, tmp_path, text)

    assert of_repos(found) == {GGUF}
    assert found.base_model == BASE
    assert all(one.shape for one in found.candidates)


def test_a_revision_is_that_commit(quants, tmp_path):
    """`@` a commit, a branch or a tag; the repo has moved on since."""
    before = quants.shelf.repos[GGUF].main.sha
    quants.replace_files(GGUF, {"Tiny-1B-Instruct-Q5_0.gguf": tiny(tmp_path, "q5.gguf", tensor_type="Q5_0")})
    quants.add_tag(GGUF, "v1", before)

    now, then, tagged = (find(quants, tmp_path, f"{GGUF}{at}") for at in ("", f"@{before}", "@v1"))

    assert {one.quant for one in now.candidates} == {"Q5_0"}
    assert {one.quant for one in then.candidates} == {one.quant for one in tagged.candidates} == {"Q8_0", "Q4_0"}
    assert {(one.revision, one.ref) for one in tagged.candidates} == {(before, "v1")}


def test_a_revision_that_is_not_there_names_those_that_are(quants, tmp_path):
    """Exit 3 for a branch, for one of a bare name, and for one of a repo that is not there."""
    with pytest.raises(ModelNotFound) as raised:
        find(quants, tmp_path, f"{GGUF}@mian")
    assert raised.value.nearest == ("main",)
    with pytest.raises(ModelNotFound, match="ORG/NAME@REVISION"):
        find(quants, tmp_path, "Tiny-1B-Instruct@v1")
    with pytest.raises(ModelNotFound):
        find(quants, tmp_path, "nobody/Nothing-GGUF@v1")


def test_the_file_of_an_address_is_the_only_candidate(quants, tmp_path):
    """`…/blob/main/FILE`; a file that is not there gets the nearest."""
    address = f"https://huggingface.co/{GGUF}/blob/main/Tiny-1B-Instruct-"

    assert [one.quant for one in find(quants, tmp_path, f"{address}Q4_0.gguf").candidates] == ["Q4_0"]
    with pytest.raises(ModelNotFound) as raised:
        find(quants, tmp_path, f"{address}Q4_1.gguf")
    assert "Tiny-1B-Instruct-Q4_0.gguf" in raised.value.nearest


def test_gptq_branches_are_candidates_beside_main(hub, tmp_path):
    """TheBloke's: main holds 4 bits in groups of 128, branches other groups and widths; the config read is main's."""
    gptq = config_bytes(quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})
    files = {"config.json": gptq, "model.safetensors": 9000}
    branches = dict.fromkeys(["gptq-4bit-32g-actorder_True", "gptq-8bit--1g-actorder_True"], files)
    repo_id = "TheBloke/Tiny-1B-Instruct-GPTQ"
    hub.add_repo(repo_id, files, branches=branches)

    alone, of_base = find(hub, tmp_path, repo_id), find(hub, tmp_path, "Tiny-1B-Instruct")

    for found in (alone, of_base):
        assert {(one.ref, one.format, one.quant) for one in found.candidates} == {
            ("main", "gptq", "4bit-g128"),
            ("gptq-4bit-32g-actorder_True", "gptq", "4bit-g32"),
            ("gptq-8bit--1g-actorder_True", "gptq", "8bit"),
        }


def test_exl2_branches_are_one_candidate_each(hub, tmp_path):
    """`main` holds a measurement alone; branch names say the bits."""
    files = {"output.safetensors": 9000, "config.json": config_bytes(), "tokenizer.json": b"{}"}
    branches = dict.fromkeys(["8_0", "6_5", "4.25bpw", "4_0bpw_h6", "notes"], files)
    repo_id = "quanter/Tiny-1B-Instruct-exl2"
    hub.add_repo(repo_id, {"measurement.json": b"{}"}, branches=branches, base_model=BASE, relation="quantized")

    alone, of_base = find(hub, tmp_path, repo_id), find(hub, tmp_path, "Tiny-1B-Instruct")

    labels = {("8_0", "8.0bpw"), ("6_5", "6.5bpw"), ("4.25bpw", "4.25bpw"), ("4_0bpw_h6", "4.0bpw")}
    for found in (alone, of_base):
        assert {(one.ref, one.quant) for one in found.candidates} == labels
        assert {(one.format, one.files[0].path) for one in found.candidates} == {("exl2", "output.safetensors")}
        assert all(one.shape for one in found.candidates)
    assert {one.revision for one in alone.candidates} == {
        hub.shelf.repos[repo_id].commit_at(name).sha for name in branches if name != "notes"
    }
    assert [one.quant for one in find(hub, tmp_path, f"{repo_id}@6_5").candidates] == ["6.5bpw"]


def test_a_renamed_repo_is_found_under_its_old_name(quants, tmp_path):
    """The Hub redirects; tags that still say the old name count."""
    quants.add_alias("acme/Tiny-1B-Chat", BASE)
    old = "third/Tiny-1B-Chat-GGUF"
    quants.add_repo(
        old, {"x-Q8_0.gguf": tiny(tmp_path, "x.gguf")}, base_model="acme/Tiny-1B-Chat", relation="quantized"
    )

    found = find(quants, tmp_path, "acme/Tiny-1B-Chat")

    assert found.base_model == BASE
    assert of_repos(found) >= {BASE, GGUF}


# Names


def spellings():
    """The rows of the data file."""
    lines = [line.split("\t") for line in SPELLINGS.read_text().splitlines() if not line.startswith("#")]
    return [pytest.param(*line, id=line[0]) for line in lines[1:]]


@pytest.mark.parametrize(("spelling", "base_model"), spellings())
def test_a_usual_spelling_finds_its_base(listing_hub, tmp_path, spelling, base_model):
    """Over the whole listing; every quant found is one of that base, by the listing's own labels."""
    found = find(listing_hub, tmp_path, spelling)

    assert found.base_model == base_model
    assert found.candidates


def test_a_loose_spelling_says_what_else_it_could_be(listing_hub, tmp_path):
    """`llama3:8b` is the base to the letter and Instruct by custom: said, not silent."""
    (warning,) = find(listing_hub, tmp_path, "llama3:8b").warnings

    assert "meta-llama/Meta-Llama-3-8B-Instruct" in warning
    assert "it could also mean meta-llama/Meta-Llama-3-8B." in warning


def test_an_ambiguous_name_offers_the_best_known_first(listing_hub, tmp_path):
    """Exit 3: a family without a size."""
    with pytest.raises(AmbiguousModel) as raised:
        find(listing_hub, tmp_path, "qwen3")

    assert len(raised.value.nearest) > 5
    assert all(name.startswith("Qwen/") for name in raised.value.nearest[:5])


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("Llama-3.1-9B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("lama 3.1 8b instuct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("gpt-oss-40b", "openai/gpt-oss-20b"),
        ("qwen2.5 coder 13b instruct", "Qwen/Qwen2.5-Coder-14B-Instruct"),
        ("meta-lama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
    ],
)
def test_a_model_that_is_not_there_gets_the_nearest(listing_hub, tmp_path, text, near):
    """Exit 3 with names: sizes that do not exist and typing errors are not guessed away."""
    with pytest.raises(ModelNotFound, match="in the Hub") as raised:
        find(listing_hub, tmp_path, text)

    assert near in raised.value.nearest


def test_an_official_organisation_beats_a_copy(quants, tmp_path):
    """`Qwen/X` is meant by X, however popular somebody's repo of that name is."""
    for repo_id, downloads in (("Qwen/Mini-2B", 10), ("copycat/Mini-2B", 10**6)):
        quants.add_repo(repo_id, {"config.json": config_bytes(), "model.safetensors": 30000}, downloads=downloads)

    found = find(quants, tmp_path, "mini-2b")

    assert found.base_model == "Qwen/Mini-2B"
    assert of_repos(found) == {"Qwen/Mini-2B"}


# Bad repos and bad Hubs


def test_what_cannot_be_taken_has_its_reason(quants, tmp_path):
    """Hidden files are passed over; pickles, missing shards, empty files and names that leave the store are refused."""
    quants.add_repo(
        "bad/Tiny-1B-Instruct-GGUF",
        {
            ".cache/Tiny-1B-Instruct-Q8_0.gguf": 9000,
            "Tiny-1B-Instruct-Q6_K-00001-of-00002.gguf": 9000,
            "Tiny-1B-Instruct-Q5_0.gguf": 0,
            "Tiny-1B-Instruct-f32.gguf": 9000,
            "con.Q4_1.gguf": 9000,
            "pytorch_model.bin": 9000,
        },
        base_model=BASE,
        relation="quantized",
    )

    found = find(quants, tmp_path, BASE)

    defects = {one.files[0].path: one.defect.reason for one in found.candidates if one.defect}
    assert defects == {
        "Tiny-1B-Instruct-Q6_K-00001-of-00002.gguf": "incomplete",
        "Tiny-1B-Instruct-Q5_0.gguf": "incomplete",
        "Tiny-1B-Instruct-f32.gguf": "mislabelled",  # no f32 model of that many weights is so small
        "con.Q4_1.gguf": "unsafe",
        "pytorch_model.bin": "unsafe",
    }


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"pytorch_model.bin": 900, "config.json": b"{}"}, UnsafeFile),
        ({"x-Q4_0-00001-of-00002.gguf": 900}, FileDamaged),
        ({"README.md": b"hello"}, NotAModel),
        ({"adapter_model.safetensors": 900}, NotAModel),
        ({"mmproj-f16.gguf": 900}, NotAModel),
    ],
)
def test_a_repo_that_holds_nothing_to_take_is_refused(hub, tmp_path, files, error):
    """Exit 8 for weights that cannot be taken, exit 3 for no weights at all."""
    hub.add_repo("org/Thing-1B-GGUF", files)

    with pytest.raises(error):
        find(hub, tmp_path, "org/Thing-1B-GGUF")


@pytest.mark.parametrize("text", [BASE, "tiny 1b instruct", GGUF])
def test_a_hub_that_is_down_is_exit_5(quants, tmp_path, text):
    """Whatever was asked for; nothing is taken for not found."""
    quants.fault("status", status=503)

    with pytest.raises(HubUnreachable):
        find(quants, tmp_path, text)


# Headers


def test_finalists_get_exact_weights_from_their_headers(quants, tmp_path):
    """Types, template and imatrix as the file has them; other formats and what was not asked for stay as they are."""
    with hub_source(quants, tmp_path) as (source, _):
        found = source.find(parse_model(BASE))
        sharp = source.sharpened(found.candidates)

    by_label = {one.quant: one for one in sharp}
    assert [one.quant for one in sharp] == [one.quant for one in found.candidates]
    assert by_label["Q8_0"].weights.type_bytes[0][0] == "Q8_0"
    assert by_label["Q8_0"].weights.bpw == pytest.approx(8.5)
    assert by_label["Q8_0"].has_chat_template is False
    assert by_label["bf16"] == next(one for one in found.candidates if one.quant == "bf16")


def test_headers_tell_lies_and_damage(base, tmp_path):
    """A label that its tensors contradict, a file that is cut short, one that is no GGUF: defects, never fatal."""
    whole = tiny(tmp_path, "q8.gguf").read_bytes()
    half = tiny(tmp_path, "f16.gguf", tensor_type="F16", file_type=1).read_bytes()
    files = {
        "Tiny-1B-Instruct-Q4_K_M.gguf": half,
        "Tiny-1B-Instruct-Q8_0.gguf": whole[:-2000],
        "Tiny-1B-Instruct-Q5_0.gguf": b"<html>" + bytes(20000),
    }
    base.add_repo(GGUF, files, base_model=BASE, relation="quantized")
    with hub_source(base, tmp_path) as (source, _):
        candidates = [one for one in source.find(parse_model(BASE)).candidates if one.format == "gguf"]
        sharp = {one.quant: one.defect for one in source.sharpened(candidates)}

    assert sharp["Q4_K_M"].reason == "mislabelled"
    assert "truncated" in sharp["Q8_0"].detail
    assert "no GGUF file" in sharp["Q5_0"].detail


@pytest.mark.parametrize(
    ("of_base", "of_header", "why"),
    [
        ({"num_hidden_layers": 3}, {}, "layers 2, not 3"),
        ({"hidden_size": 36}, {}, "embedding length 32, not 36"),
        ({"vocab_size": 96}, {"n_vocab": 98}, "vocabulary of 98, not 96"),
        ({"vocab_size": 200}, {}, "vocabulary of 96, not 200"),
        ({"vocab_size": 96}, {"n_vocab": 104}, None),  # rounded up to eight
        ({"vocab_size": 93}, {}, None),
    ],
)
def test_a_header_of_other_dimensions_is_another_model_s(hub, tmp_path, of_base, of_header, why):
    """A fine-tune, merge or pruned copy that calls itself a quant of its base; who asks for that repo still gets it."""
    hub.add_repo(BASE, {"config.json": config_bytes(**of_base), "model.safetensors": 30000})
    file = tiny(tmp_path, "q8.gguf", **of_header)
    hub.add_repo(GGUF, {"Tiny-1B-Instruct-Q8_0.gguf": file}, base_model=BASE, relation="quantized")

    defects = {}
    for text in (BASE, GGUF):
        with hub_source(hub, tmp_path / text) as (source, _):
            quants = [one for one in source.find(parse_model(text)).candidates if one.format == "gguf"]
            (defects[text],) = (one.defect for one in source.sharpened(quants))

    assert defects[GGUF] is None
    if why is None:
        assert defects[BASE] is None
    else:
        assert (defects[BASE].reason, defects[BASE].detail) == ("mislabelled", f"it is not {BASE}: {why}")


def test_a_stand_in_of_zeros_tells_nothing(base, tmp_path):
    """A mirror that keeps names and sizes alone: what label and size tell stands."""
    base.add_repo(GGUF, {"Tiny-1B-Instruct-f32.gguf": 2 * 2**20}, base_model=BASE, relation="quantized")
    with hub_source(base, tmp_path) as (source, _):
        found = source.find(parse_model(GGUF))

        assert source.sharpened(found.candidates) == found.candidates


def test_without_any_config_the_smallest_header_tells_the_shape(hub, tmp_path):
    """One read for all quants of an old repo."""
    files = {
        "Tiny-1B-Instruct-Q8_0.gguf": tiny(tmp_path, "q8.gguf"),
        "Tiny-1B-Instruct-Q4_0.gguf": tiny(tmp_path, "q4.gguf", tensor_type="Q4_0", file_type=2),
    }
    hub.add_repo(GGUF, files)

    found = find(hub, tmp_path, "Tiny-1B-Instruct")

    read = {seen.path for seen in hub.requests if "/cdn/" in seen.path}
    assert {one.shape.n_vocab for one in found.candidates} == {96}
    assert len(read) == 1
    assert "Q4_0" in read.pop()


# What it costs


def crowded(hub, tmp_path):
    """A base that everybody quantizes: 150 repos, EXL repos with eight branches each."""
    facts = {"base_model": BASE, "relation": "quantized"}
    hub.add_repo(BASE, {"config.json": config_bytes(), "model.safetensors": 30000}, gated="manual")
    q8 = {"Tiny-1B-Instruct-Q8_0.gguf": tiny(tmp_path, "q8.gguf")}
    for n in range(90):
        hub.add_repo(f"person{n}/Tiny-1B-Instruct-GGUF", q8, downloads=n, **facts)
    for publisher in ("bartowski", "unsloth", "mradermacher"):
        hub.add_repo(f"{publisher}/Tiny-1B-Instruct-GGUF", q8, downloads=5, **facts)
    mlx = {"config.json": config_bytes(quantization={"bits": 4, "group_size": 64}), "model.safetensors": 9000}
    for n in range(40):
        hub.add_repo(f"mlx-community/Tiny-1B-Instruct-{n}-4bit", mlx, library="mlx", downloads=n, **facts)
    branches = {f"{n}_{m}": {"output.safetensors": 9000} for n in (2, 3, 4, 5) for m in (0, 5)}
    for n in range(12):
        hub.add_repo(f"exl{n}/Tiny-1B-Instruct-exl2", {"measurement.json": b"{}"}, branches=branches, **facts)


@pytest.mark.parametrize("text", [BASE, "tiny 1b instruct"])
def test_a_crowded_base_costs_no_more_than_the_budget(hub, tmp_path, text):
    """At most 60 API requests and four round trips, headers included; every format and the known publishers are in."""
    crowded(hub, tmp_path)
    with hub_source(hub, tmp_path) as (source, client):
        found = source.find(parse_model(text))
        source.sharpened([one for one in found.candidates if one.publisher == "bartowski"])

        n_api = sum(seen.path.startswith("/api/") for seen in hub.requests)
        formats = Counter(one.format for one in found.candidates)
        assert client.depth <= 4
        assert n_api == client.n_calls <= MOST_CALLS
    assert set(formats) == {"gguf", "mlx", "exl2", "safetensors"}
    assert of_repos(found) >= {f"{who}/Tiny-1B-Instruct-GGUF" for who in ("bartowski", "unsloth", "mradermacher")}
    assert any("more repos" in warning for warning in found.warnings)


def test_a_repo_of_50_000_files_is_like_any_other(quants, tmp_path):
    """It costs no further request, and its quants are those that it would have without them."""
    without = find(quants, tmp_path / "before", BASE)
    n_calls = len(quants.requests)
    quants.requests.clear()
    many = {f"d{number % 97}/f{number}.txt": 10 for number in range(50_000)}
    quants.replace_files(GGUF, quants.shelf.repos[GGUF].main.blobs | many)

    found = find(quants, tmp_path / "after", BASE)

    assert len(quants.requests) == n_calls
    assert {(one.format, one.quant) for one in found.candidates} == {
        (one.format, one.quant) for one in without.candidates
    }


@pytest.mark.parametrize(
    "text", ["Llama-3-8B-Instruct", "qwen3 30b a3b", "gemma-3-27b-it", "meta-llama/Llama-3.1-8B-Instruct"]
)
def test_a_name_over_the_whole_listing_costs_little(listing_hub, tmp_path, text):
    """Four round trips with headers, well under 60 requests, and not one header read before the finalists."""
    with hub_source(listing_hub, tmp_path) as (source, client):
        found = source.find(parse_model(text))
        n_config_bytes = client.n_file_bytes
        source.sharpened(found.candidates)

        assert n_config_bytes < 100_000
        assert client.depth <= 4
        assert client.n_calls <= 30


def test_no_more_than_three_headers_are_read_in_one_decision(base, tmp_path):
    """However often and whatever is asked to be sharpened; the fourth stays as it was."""
    q8 = tiny(tmp_path, "q8.gguf")
    base.add_repo(GGUF, {f"Tiny-1B-Instruct-{n}-Q8_0.gguf": q8 for n in range(5)}, base_model=BASE)
    with hub_source(base, tmp_path) as (source, _):
        candidates = [one for one in source.find(parse_model(BASE)).candidates if one.format == "gguf"]
        once = source.sharpened(candidates[:2])
        again = source.sharpened(candidates)

    assert again[:2] == once
    assert [one.has_chat_template for one in again] == [False, False, False, None, None]


def padded(folder, name, *, mib):
    """A whole GGUF file of the tiny model with a header of more than `mib` MiB."""
    import gguf  # its import takes a second, which only this test needs

    reader = gguf.GGUFReader(tiny(folder, "plain.gguf"))
    path = folder / name
    writer = gguf.GGUFWriter(path, "llama")
    for key, field in reader.fields.items():
        if key.startswith("llama."):
            writer.add_uint32(key, int(field.contents()))
    writer.add_array("general.padding", ["x" * 2**14] * (mib * 2**6))
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_headers_cost_at_most_48_mib(base, tmp_path):
    """Each of three finalists has a third, more than any header seen; one that is larger stays as it was."""
    usual, huge = padded(tmp_path, "usual.gguf", mib=12), padded(tmp_path, "huge.gguf", mib=20)
    files = {"Tiny-1B-Instruct-a-Q8_0.gguf": usual, "Tiny-1B-Instruct-b-Q8_0.gguf": huge}
    files["Tiny-1B-Instruct-c-Q8_0.gguf"] = usual.read_bytes() + b"\0"
    base.add_repo(GGUF, files, base_model=BASE)
    with hub_source(base, tmp_path) as (source, client):
        gguf = [one for one in source.find(parse_model(BASE)).candidates if one.format == "gguf"]
        sharp = source.sharpened([replace(one, defect=None) for one in gguf])

        assert client.n_file_bytes <= 48 * 2**20
    assert [one.has_chat_template for one in sharp] == [False, None, False]


def test_the_second_look_asks_nothing(quants, tmp_path):
    """Listings, files and configs are kept for a while: the same question again is answered from this disk."""
    first = find(quants, tmp_path, BASE)
    quants.requests.clear()

    assert find(quants, tmp_path, BASE) == first
    assert quants.requests == []


# On this disk


def test_the_chosen_file_is_fetched_into_the_hub_s_cache(quants, tmp_path):
    """By commit, verified; from then on it counts as stored."""
    with hub_source(quants, tmp_path) as (source, _):
        one = next(one for one in source.find(parse_model(BASE)).candidates if one.quant == "Q8_0")
        path = source.local_path(one)
        again = next(one for one in source.find(parse_model(BASE)).candidates if one.quant == "Q8_0")

    assert (
        path
        == tmp_path / "hub" / "models--quanter--Tiny-1B-Instruct-GGUF" / "snapshots" / one.revision / one.files[0].path
    )
    assert path.stat().st_size == one.size_bytes
    assert again.stored


def test_all_an_engine_needs_is_fetched(base, tmp_path):
    """Of plain weights config and tokenizer too; the path is the weights'."""
    base.replace_files(
        BASE, {"config.json": config_bytes(), "model.safetensors": bytes(30000), "tokenizer.json": b"{}"}
    )
    with hub_source(base, tmp_path) as (source, _):
        (one,) = source.find(parse_model(BASE)).candidates
        path = source.local_path(one)

    assert path.name == "model.safetensors"
    assert {file.name for file in path.parent.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
