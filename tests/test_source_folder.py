"""A folder of repos: names become candidates, and one bad file never hides the good ones."""

import json
from pathlib import Path

import pytest

from qrun.errors import AmbiguousModel, Failure, FileDamaged, ModelNotFound, NotAModel, UnsafeFile
from qrun.model_card import parse_card
from qrun.names import parse_model
from qrun.repo_match import base_of_repo
from qrun.source_folder import FolderSource
from tiny_gguf import write_tiny_gguf

CARD = "---\nbase_model: acme/Tiny-1B-Instruct\nbase_model_relation: quantized\n---\n"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with two repos of Tiny-1B-Instruct (one with a card), one of its base and one of a fine-tune."""
    repo = tmp_path / "quanter" / "Tiny-1B-Instruct-GGUF"
    write_tiny_gguf(repo / "Tiny-1B-Instruct-Q8_0.gguf", tensor_type="Q8_0", file_type=7)
    write_tiny_gguf(repo / "Tiny-1B-Instruct-Q4_0.gguf", tensor_type="Q4_0", file_type=2)
    (repo / "README.md").write_text(CARD)
    write_tiny_gguf(
        tmp_path / "other" / "Tiny-1B-Instruct-i1-GGUF" / "Tiny-1B-Instruct.i1-Q5_0.gguf", tensor_type="Q5_0"
    )
    write_tiny_gguf(tmp_path / "other" / "Tiny-1B-GGUF" / "Tiny-1B.Q8_0.gguf")
    write_tiny_gguf(tmp_path / "other" / "Tiny-1B-Instruct-uncensored-GGUF" / "Tiny-1B-Instruct-uncensored.Q8_0.gguf")
    return tmp_path


def find(root: Path, text: str):
    """What the folder has of MODEL."""
    return FolderSource(root).find(parse_model(text))


def test_a_name_finds_every_quant_of_its_model_and_nothing_else(models):
    """All repos of the base, told by card or name; neither the base nor a fine-tune is the Instruct model."""
    found = find(models, "tiny 1b instruct")

    assert found.base_model == "acme/Tiny-1B-Instruct"
    assert [(one.repo_id, one.quant) for one in found.candidates] == [
        ("other/Tiny-1B-Instruct-i1-GGUF", "Q5_0"),
        ("quanter/Tiny-1B-Instruct-GGUF", "Q4_0"),
        ("quanter/Tiny-1B-Instruct-GGUF", "Q8_0"),
    ]
    assert found.warnings == ()


def test_a_candidate_carries_what_its_header_says(models):
    """Shape, weights, publisher and files of one candidate, read from a real header."""
    one = next(one for one in find(models, "Tiny-1B-Instruct").candidates if one.quant == "Q8_0")

    assert (one.publisher, one.revision, one.format, one.defect) == ("quanter", None, "gguf", None)
    assert one.shape is not None
    assert one.shape.n_layer == 2
    assert one.weights is not None
    assert one.weights.bpw == pytest.approx(8.5)
    file = models / "quanter" / "Tiny-1B-Instruct-GGUF" / one.files[0].path
    assert one.files[0].size_bytes == file.stat().st_size
    assert FolderSource(models).local_path(one) == file


def test_an_exact_repo_id_is_that_repo_alone(models):
    """Case is ignored; the other repo of the same base stays out."""
    found = find(models, "Quanter/tiny-1b-instruct-gguf")

    assert {one.repo_id for one in found.candidates} == {"quanter/Tiny-1B-Instruct-GGUF"}


def test_a_bare_repo_name_is_that_repo(models):
    """`NAME-GGUF` without its organisation."""
    assert {one.repo_id for one in find(models, "Tiny-1B-Instruct-i1-GGUF").candidates} == {
        "other/Tiny-1B-Instruct-i1-GGUF"
    }


def test_a_looser_spelling_takes_the_instruct_model_and_says_so(models):
    """`tiny:1b` spells the base in other letters, and mostly means Instruct."""
    found = find(models, "tiny:1b")

    assert found.base_model == "acme/Tiny-1B-Instruct"
    assert len(found.warnings) == 1
    assert "Tiny-1B" in found.warnings[0]
    assert find(models, "Tiny-1B").candidates[0].repo_id == "other/Tiny-1B-GGUF"


def test_an_ambiguous_name_offers_the_choices(models):
    """Two sizes, no size asked for."""
    write_tiny_gguf(models / "other" / "Tiny-3B-Instruct-GGUF" / "Tiny-3B-Instruct.Q8_0.gguf")

    with pytest.raises(AmbiguousModel) as raised:
        find(models, "tiny instruct")

    assert set(raised.value.nearest) == {"acme/Tiny-1B-Instruct", "Tiny-3B-Instruct"}


def test_a_name_that_is_not_there_gets_the_nearest(models):
    """Exit 3 with what is in the folder."""
    with pytest.raises(ModelNotFound, match="Did you mean") as raised:
        find(models, "Tinny-1B-Instruct")

    assert raised.value.nearest[0] == "acme/Tiny-1B-Instruct"


def test_an_id_is_not_loosened(models):
    """An id with its organisation means that model: not the Instruct model beside it, not another's of its name."""
    assert {one.repo_id for one in find(models, "acme/Tiny-1B").candidates} == {"other/Tiny-1B-GGUF"}
    with pytest.raises(ModelNotFound):
        find(models, "elsewhere/Tiny-1B-Instruct")


def test_the_same_name_of_two_organisations_is_kept_apart(models):
    """The other organisation's quants are left out, and that is said."""
    repo = models / "third" / "Tiny-1B-Instruct-GGUF"
    write_tiny_gguf(repo / "Tiny-1B-Instruct.Q8_0.gguf")
    (repo / "README.md").write_text(CARD.replace("acme", "zeta"))

    found = find(models, "zeta/Tiny-1B-Instruct")

    assert "quanter/Tiny-1B-Instruct-GGUF" not in {one.repo_id for one in found.candidates}
    assert "acme/Tiny-1B-Instruct" in found.warnings[0]


def test_a_missing_or_empty_folder_says_so(tmp_path):
    """The line names the folder and the option that sets it."""
    with pytest.raises(ModelNotFound, match=r"which is no folder.*--models-dir"):
        find(tmp_path / "nowhere", "x")
    with pytest.raises(ModelNotFound, match=r"holds no repos.*--models-dir"):
        find(tmp_path, "x")


def test_a_repo_without_weights_is_no_model(tmp_path):
    """The name is there, the files are not."""
    (tmp_path / "org" / "Tiny-1B-GGUF").mkdir(parents=True)

    with pytest.raises(NotAModel, match="no GGUF file"):
        find(tmp_path, "Tiny-1B")


def test_a_revision_is_refused(models):
    """A folder has one state of a repo: another is not silently replaced by it. `main` is what lies there."""
    with pytest.raises(ModelNotFound, match="no revisions"):
        find(models, "quanter/Tiny-1B-Instruct-GGUF@4f1e2d")
    assert find(models, "quanter/Tiny-1B-Instruct-GGUF@main").candidates


def test_an_address_of_a_file_is_that_file(models):
    """The address of the browser gives the one candidate; of a file that is not there, the nearest."""
    address = "https://huggingface.co/quanter/Tiny-1B-Instruct-GGUF/blob/main/Tiny-1B-Instruct-Q4_0.gguf"

    assert [one.quant for one in find(models, address).candidates] == ["Q4_0"]
    with pytest.raises(ModelNotFound) as raised:
        find(models, address.replace("Q4_0", "Q4_1"))
    assert "Tiny-1B-Instruct-Q4_0.gguf" in raised.value.nearest


# Damage


def test_a_truncated_file_is_incomplete_and_hides_nothing(models):
    """Both byte counts stand in the detail; the whole files are still there."""
    file = models / "quanter" / "Tiny-1B-Instruct-GGUF" / "Tiny-1B-Instruct-Q8_0.gguf"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])

    candidates = {one.quant: one for one in find(models, "Tiny-1B-Instruct").candidates}

    assert candidates["Q8_0"].defect.reason == "incomplete"
    assert f"{len(whole) - 1000:,}" in candidates["Q8_0"].defect.detail
    assert f"{len(whole):,}" in candidates["Q8_0"].defect.detail
    assert candidates["Q4_0"].defect is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"<html>Not found</html>", "mislabelled"), (b"", "incomplete"), (b"GGUF\xff\xff", "incomplete")],
)
def test_what_is_no_gguf_has_a_defect(models, content, reason):
    """An error page, an empty file, a header that ends at once."""
    (models / "other" / "Tiny-1B-Instruct-i1-GGUF" / "Tiny-1B-Instruct.i1-Q5_0.gguf").write_bytes(content)

    bad = next(one for one in find(models, "Tiny-1B-Instruct").candidates if one.quant == "Q5_0")

    assert bad.defect.reason == reason
    assert bad.shape is None


def test_a_model_of_damaged_files_alone_is_refused(models):
    """Exit 8 names one file and how many more there are."""
    for file in (models / "quanter" / "Tiny-1B-Instruct-GGUF").glob("*.gguf"):
        file.write_bytes(file.read_bytes()[:5000])

    with pytest.raises(FileDamaged, match=r"Q4_0.gguf is damaged: truncated.*and 1 more"):
        find(models, "quanter/Tiny-1B-Instruct-GGUF")


def test_a_label_that_the_tensors_contradict_is_mislabelled(models):
    """A Q8_0 by name whose tensors are Q4_0, and a Q4_0 whose tensors are F16."""
    repo = models / "quanter" / "Tiny-1B-Instruct-GGUF"
    write_tiny_gguf(repo / "Tiny-1B-Instruct-Q8_0.gguf", tensor_type="Q4_0")
    write_tiny_gguf(repo / "Tiny-1B-Instruct-Q4_0.gguf", tensor_type="F16")

    candidates = {one.quant: one for one in find(models, "quanter/Tiny-1B-Instruct-GGUF").candidates}

    assert candidates["Q8_0"].defect.reason == "mislabelled"
    assert "4.5 bits" in candidates["Q8_0"].defect.detail
    assert candidates["Q4_0"].defect.reason == "mislabelled"


def test_a_low_label_over_fallback_types_is_honest(models):
    """Rows that do not divide by 256 make llama-quantize take wider types: more bits than promised are no fault."""
    repo = models / "quanter" / "Tiny-1B-Instruct-GGUF"
    write_tiny_gguf(repo / "Tiny-1B-Instruct-Q2_K.gguf", tensor_type="Q4_1")

    candidates = {one.quant: one for one in find(models, "quanter/Tiny-1B-Instruct-GGUF").candidates}

    assert candidates["Q2_K"].defect is None


def test_a_file_without_a_label_is_told_by_its_header(tmp_path):
    """`general.file_type` says the quant; without it the tensors do; half a label is made whole."""
    repo = tmp_path / "org" / "Tiny-1B-GGUF"
    write_tiny_gguf(repo / "Tiny-1B.gguf", tensor_type="Q5_1", file_type=9)
    write_tiny_gguf(repo / "Tiny-1B-again.gguf", tensor_type="Q4_0", file_type=None)
    write_tiny_gguf(repo / "Tiny-1B-q4.gguf", tensor_type="Q4_1", file_type=3)

    assert {one.files[0].path: one.quant for one in find(tmp_path, "Tiny-1B").candidates} == {
        "Tiny-1B.gguf": "Q5_1",
        "Tiny-1B-again.gguf": "Q4_0",
        "Tiny-1B-q4.gguf": "Q4_1",
    }


def test_an_architecture_without_dimensions_is_unsupported_not_damaged(tmp_path):
    """A header that is whole but speaks of something else is the resolver's to reject."""
    file = write_tiny_gguf(tmp_path / "org" / "Tiny-1B-GGUF" / "Tiny-1B.Q8_0.gguf", architecture="llama")
    content = file.read_bytes()
    file.write_bytes(content.replace(b"llama.block_count", b"llama.blick_count"))

    found = find(tmp_path, "Tiny-1B")

    assert found.candidates[0].defect.reason == "architecture_unsupported"


def test_a_file_that_changed_after_the_choice_is_not_handed_on(models):
    """Between the decision and the launch a file may go or grow."""
    source = FolderSource(models)
    one = find(models, "other/Tiny-1B-GGUF").candidates[0]
    file = source.local_path(one)
    file.write_bytes(file.read_bytes() + b"more")

    with pytest.raises(FileDamaged, match="when it was chosen"):
        source.local_path(one)
    file.unlink()
    with pytest.raises(FileDamaged, match="gone"):
        source.local_path(one)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(PermissionError(13, "Permission denied"), "access_denied"), (OSError(5, "Input/output error"), "incomplete")],
)
def test_a_file_that_cannot_be_read_is_a_loser_with_its_reason(models, monkeypatch, error, reason):
    """Lacking permission, a bad disk: the file is named, the readable ones beside it are still there."""
    real_open = Path.open

    def open_or_fail(path, *args, **kwargs):
        if path.name == "Tiny-1B-Instruct-Q8_0.gguf":
            raise error
        return real_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_or_fail)

    candidates = {one.quant: one for one in find(models, "Tiny-1B-Instruct").candidates}

    assert candidates["Q8_0"].defect.reason == reason
    assert candidates["Q4_0"].defect is None


def test_a_model_that_may_not_be_read_at_all_is_a_failure(models, monkeypatch):
    """Exit 1: a matter of permission, not of damage."""

    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("qrun.gguf_candidate.read_header", deny)

    with pytest.raises(Failure, match="permissions") as raised:
        find(models, "Tiny-1B-Instruct")
    assert raised.value.exit_code == 1


def test_the_demo_models_are_found_by_any_spelling(demo_models):
    """Real repos of a real model: five quants of SmolLM2-135M-Instruct, none with a defect."""
    for text in (
        "SmolLM2-135M-Instruct",
        "smollm2 135m instruct",
        "huggingfacetb/smollm2-135m-instruct",
        "smollm2:135m",
    ):
        found = find(demo_models, text)

        assert found.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
        assert sorted(one.quant for one in found.candidates) == ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
        assert all(one.defect is None and one.has_chat_template for one in found.candidates)


# Layout


def test_shards_in_a_sub_folder_are_one_candidate(tmp_path):
    """Grouped and in order, the first one first."""
    folder = tmp_path / "org" / "Tiny-1B-GGUF" / "Q8_0"
    for number in (3, 1, 2):
        write_tiny_gguf(folder / f"Tiny-1B-Q8_0-{number:05d}-of-00003.gguf", split__count=3)

    found = find(tmp_path, "Tiny-1B")

    assert len(found.candidates) == 1
    assert [file.path for file in found.candidates[0].files] == [
        f"Q8_0/Tiny-1B-Q8_0-{number:05d}-of-00003.gguf" for number in (1, 2, 3)
    ]


def test_a_missing_shard_is_named(tmp_path):
    """The set is a candidate that cannot be taken; the good quant beside it can."""
    repo = tmp_path / "org" / "Tiny-1B-GGUF"
    write_tiny_gguf(repo / "Tiny-1B-Q4_0.gguf", tensor_type="Q4_0")
    write_tiny_gguf(repo / "Tiny-1B-Q8_0-00001-of-00003.gguf", split__count=3)
    write_tiny_gguf(repo / "Tiny-1B-Q8_0-00003-of-00003.gguf", split__count=3)

    candidates = {one.quant: one for one in find(tmp_path, "Tiny-1B").candidates}

    assert candidates["Q8_0"].defect.reason == "incomplete"
    assert "Tiny-1B-Q8_0-00002-of-00003.gguf" in candidates["Q8_0"].defect.detail
    assert candidates["Q4_0"].defect is None


def test_a_renamed_shard_is_incomplete(tmp_path):
    """The header knows of shards that the name hides."""
    write_tiny_gguf(tmp_path / "org" / "Tiny-1B-GGUF" / "Tiny-1B-Q8_0.gguf", split__count=2)

    with pytest.raises(FileDamaged, match="one of 2 shards"):
        find(tmp_path, "Tiny-1B")


def test_projectors_and_matrices_are_no_candidates(models):
    """By name, or by the header where the name says nothing."""
    repo = models / "other" / "Tiny-1B-GGUF"
    write_tiny_gguf(repo / "mmproj-F16.gguf", tensor_type="F16")
    write_tiny_gguf(repo / "Tiny-1B.imatrix.gguf")
    write_tiny_gguf(repo / "eyes.gguf", architecture="clip", general__type="mmproj")

    assert [one.files[0].path for one in find(models, "other/Tiny-1B-GGUF").candidates] == ["Tiny-1B.Q8_0.gguf"]


def test_links_of_files_and_repos_are_followed(models, tmp_path_factory):
    """The folder is the user's own: a link is what it points at."""
    away = tmp_path_factory.mktemp("away")
    (away / "org").mkdir()
    (away / "org" / "linked-GGUF").symlink_to(models / "other" / "Tiny-1B-GGUF")
    files = away / "org" / "Tiny-7B-GGUF"
    files.mkdir()
    (files / "Tiny-7B.Q8_0.gguf").symlink_to(models / "other" / "Tiny-1B-GGUF" / "Tiny-1B.Q8_0.gguf")

    assert find(away, "org/linked-GGUF").candidates[0].files[0].path == "Tiny-1B.Q8_0.gguf"
    linked = find(away, "tiny-7b").candidates[0]
    assert linked.defect is None
    assert FolderSource(away).local_path(linked) == files / "Tiny-7B.Q8_0.gguf"


@pytest.mark.timeout(30)
def test_link_loops_end(models):
    """A link to a folder above, in a repo or beside it, is walked once or not at all."""
    (models / "other" / "Tiny-1B-GGUF" / "again").symlink_to(models / "other" / "Tiny-1B-GGUF")
    (models / "other" / "up").symlink_to(models)
    (models / "loop").symlink_to(models / "loop")

    found = find(models, "other/Tiny-1B-GGUF")

    assert [one.files[0].path for one in found.candidates] == ["Tiny-1B.Q8_0.gguf"]
    with pytest.raises(ModelNotFound):
        find(models, "other/up")


def test_a_link_that_leads_nowhere_is_incomplete(models):
    """A Hub cache whose blob was deleted."""
    (models / "other" / "Tiny-1B-GGUF" / "Tiny-1B.Q4_0.gguf").symlink_to(models / "gone")

    candidates = {one.quant: one for one in find(models, "other/Tiny-1B-GGUF").candidates}

    assert candidates["Q4_0"].defect.reason == "incomplete"


def test_a_link_into_a_hub_cache_brings_its_sha256(models, tmp_path):
    """The blob's name is its checksum; any other file's is unknown without reading it."""
    blob = tmp_path / "blobs" / ("ab" * 32)
    write_tiny_gguf(blob)
    (models / "other" / "Tiny-1B-GGUF" / "Tiny-1B.Q6_K.gguf").symlink_to(blob)

    hashes = {one.quant: one.files[0].sha256 for one in find(models, "other/Tiny-1B-GGUF").candidates}

    assert hashes == {"Q8_0": None, "Q6_K": "ab" * 32}


# What else a repo can hold


def test_a_pickle_is_unsafe(tmp_path):
    """Beside a GGUF it is a loser with its reason; alone it is refused with exit 8."""
    repo = tmp_path / "org" / "Tiny-1B"
    repo.mkdir(parents=True)
    (repo / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (repo / "training_args.bin").write_bytes(b"\x80\x04")
    with pytest.raises(UnsafeFile, match="pickle") as raised:
        find(tmp_path, "Tiny-1B")
    assert raised.value.exit_code == 8

    write_tiny_gguf(repo / "Tiny-1B-Q8_0.gguf")
    candidates = find(tmp_path, "Tiny-1B").candidates

    assert [one.defect and one.defect.reason for one in candidates] == [None, "unsafe"]
    assert [file.path for file in candidates[1].files] == ["pytorch_model.bin"]


@pytest.mark.parametrize(
    ("repo_name", "config", "format_", "quant"),
    [
        ("Tiny-1B", {"torch_dtype": "bfloat16"}, "safetensors", "bf16"),
        ("Tiny-1B-4bit", {"quantization": {"group_size": 64, "bits": 4}}, "mlx", "4bit"),
        ("Tiny-1B-4bit-DWQ", {"quantization": {"group_size": 64, "bits": 4}}, "mlx", "4bit-DWQ"),
        ("Tiny-1B-mxfp4", {"quantization": {"bits": 4, "mode": "mxfp4"}}, "mlx", "mxfp4"),
        (
            "Tiny-1B-AWQ",
            {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}},
            "awq",
            "4bit-g128",
        ),
        ("Tiny-1B-exl2", {"quantization_config": {"quant_method": "exl2", "bits": 4.25}}, "exl2", "4.25bpw"),
        ("Tiny-1B-FP8", {"quantization_config": {"quant_method": "fp8"}}, "fp8", "fp8"),
        (
            "Tiny-1B-bnb-4bit",
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            "bnb",
            "nf4",
        ),
    ],
)
def test_other_formats_are_candidates_of_their_kind(tmp_path, repo_name, config, format_, quant):
    """What config.json says decides."""
    repo = tmp_path / "org" / repo_name
    repo.mkdir(parents=True)
    (repo / "config.json").write_text(json.dumps(config))
    (repo / "model.safetensors").write_bytes(b"x")

    one = find(tmp_path, "Tiny-1B").candidates[0]

    assert (one.format, one.quant, one.defect) == (format_, quant, None)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], None),
        (["model-00001-of-00002.safetensors"], "incomplete"),
        (["model.safetensors", "consolidated.safetensors", "adapter_model.safetensors"], None),
    ],
)
def test_safetensors_are_counted_and_extras_left_out(tmp_path, names, reason):
    """A missing shard is a defect; Mistral's second copy and adapters are no part of the model."""
    repo = tmp_path / "org" / "Tiny-1B"
    write_tiny_gguf(repo / "Tiny-1B-Q8_0.gguf")
    (repo / "config.json").write_text("{}")
    for name in names:
        (repo / name).write_bytes(b"x")

    one = find(tmp_path, "Tiny-1B").candidates[1]

    assert (one.defect and one.defect.reason) == reason
    assert {file.path for file in one.files} == {name for name in names if name.startswith("model")}


@pytest.mark.parametrize(
    "config", [None, "no json", "[]", '{"quantization_config": {"quant_method": "compressed-tensors"}}']
)
def test_safetensors_that_nothing_explains_are_no_candidate(tmp_path, config):
    """Without a config.json that says what they are, no format is guessed."""
    repo = tmp_path / "org" / "Tiny-1B"
    repo.mkdir(parents=True)
    (repo / "model.safetensors").write_bytes(b"x")
    if config is not None:
        (repo / "config.json").write_text(config)

    with pytest.raises(NotAModel):
        find(tmp_path, "Tiny-1B")


# Whose quant a repo is


@pytest.mark.parametrize(
    ("card", "bases"),
    [
        ("---\nbase_model: a/B-7B\n---", ("a/B-7B",)),
        ("---\r\nlicense: mit\r\nbase_model:\r\n- a/B-7B\r\n---\r\n", ("a/B-7B",)),
        ("---\nbase_model: [\"a/B-7B\", 'c/D']  # two\n---", ("a/B-7B", "c/D")),
        ("---\nbase_model:\n  - a/B-7B\n  - c/D\ntags: x\n---", ("a/B-7B", "c/D")),
        ('\ufeff---\nbase_model: "a/B-7B" # why\n---\n', ("a/B-7B",)),
        ("base_model: a/B-7B", ()),
        ("---\nbase_model: a/B-7B\n", ()),
        ("---\nbase_model: [*anchor]\n---", ()),
        ("", ()),
    ],
)
def test_a_card_is_read_in_its_usual_forms(card, bases):
    """A value or a list, quotes, comments; what is no head, or has no end, is no card."""
    assert parse_card(card).base_models == bases


@pytest.mark.parametrize(
    ("repo_id", "card", "base"),
    [
        ("x/B-7B-GGUF", "base_model: a/B-7B", "a/B-7B"),
        ("x/mine", "base_model: a/B-7B\nbase_model_relation: quantized", "a/B-7B"),
        ("x/B-7B-Neo-GGUF", "base_model: a/B-7B", "B-7B-Neo"),
        ("x/B-7B-GGUF", "base_model: a/B-7B\nbase_model_relation: finetune", "B-7B"),
        ("x/Merged-GGUF", "base_model:\n- a/B\n- a/C", "Merged"),
    ],
)
def test_a_fine_tune_is_not_its_base(repo_id, card, base):
    """`base_model` of a fine-tune's card is what it started from."""
    assert base_of_repo(repo_id, parse_card(f"---\n{card}\n---\n"))[0] == base


def test_a_folder_that_cannot_be_listed_is_one_line(models, monkeypatch):
    """Exit 1 with the folder's name, no traceback."""

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("qrun.source_folder.subfolders", denied)

    with pytest.raises(Failure, match=f"{models} cannot be read: Permission denied"):
        find(models, "Tiny-1B")
