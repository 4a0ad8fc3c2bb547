"""A model by its path: files with their shards, folders of one model, and paths that are neither."""

import shutil
from pathlib import Path

import pytest

from qrun.errors import AmbiguousModel, Failure, FileDamaged, ModelNotFound, NotAModel, UnsafeFile
from qrun.names import parse_model
from qrun.source_file import FileSource
from tiny_gguf import write_tiny_gguf


def find(path: Path | str):
    """What there is at the path."""
    return FileSource().find(parse_model(str(path)))


def test_a_file_is_a_model(tmp_path):
    """No repo, no publisher; the path is absolute and the name is the file's own."""
    path = write_tiny_gguf(tmp_path / "Tiny-1B-Instruct.i1-Q8_0.gguf", tokenizer__chat_template="{{ messages }}")

    found = find(path)

    one = found.candidates[0]
    assert found.base_model == "Tiny-1B-Instruct"
    assert (one.repo_id, one.publisher, one.quant, one.defect) == (None, None, "Q8_0", None)
    assert one.files[0].path == str(path)
    assert one.has_chat_template
    assert one.has_imatrix
    assert FileSource().local_path(one) == path


def test_an_imatrix_is_told_by_the_header(tmp_path):
    """llama-quantize writes down the matrix it used."""
    with_one = write_tiny_gguf(tmp_path / "a-Q8_0.gguf", quantize__imatrix__file="calibration.dat")
    without = write_tiny_gguf(tmp_path / "b-Q8_0.gguf")

    assert find(with_one).candidates[0].has_imatrix is True
    assert find(without).candidates[0].has_imatrix is False


def test_a_generic_file_name_is_named_by_the_header(tmp_path):
    """`model.gguf` says nothing, `general.name` does; where the name speaks, the header is not asked."""
    assert find(write_tiny_gguf(tmp_path / "model.gguf", general__name="Tiny 1B")).base_model == "Tiny 1B"
    assert find(write_tiny_gguf(tmp_path / "Tiny-2B-Q8_0.gguf", general__name="epoch 3")).base_model == "Tiny-2B"


def test_the_source_repo_in_the_header_gives_the_organisation(tmp_path):
    """Only where it is that model: a header may name another."""
    url = "https://huggingface.co/acme/Tiny-1B"
    told = write_tiny_gguf(tmp_path / "Tiny-1B-Q8_0.gguf", general__source__repo_url=url)
    not_told = write_tiny_gguf(tmp_path / "Tiny-2B-Q8_0.gguf", general__source__repo_url=url)

    assert find(told).base_model == "acme/Tiny-1B"
    assert find(not_told).base_model == "Tiny-2B"


def test_the_parent_of_a_model_is_not_taken_for_it(tmp_path):
    """`general.base_model` of an Instruct model names its base model."""
    path = write_tiny_gguf(
        tmp_path / "Tiny-1B-Instruct-Q8_0.gguf",
        general__base_model__0__repo_url="https://huggingface.co/acme/Tiny-1B",
    )

    assert find(path).base_model == "Tiny-1B-Instruct"


def test_a_shard_brings_the_others_of_its_set(tmp_path):
    """Whichever is named, the first comes first."""
    for number in (1, 2):
        write_tiny_gguf(tmp_path / f"Tiny-1B-Q8_0-{number:05d}-of-00002.gguf", split__count=2)

    one = find(tmp_path / "Tiny-1B-Q8_0-00002-of-00002.gguf").candidates[0]

    assert [Path(file.path).name for file in one.files] == [
        "Tiny-1B-Q8_0-00001-of-00002.gguf",
        "Tiny-1B-Q8_0-00002-of-00002.gguf",
    ]


def test_a_missing_shard_is_refused_by_name(tmp_path):
    """Exit 8: a set that is not whole cannot be run."""
    path = write_tiny_gguf(tmp_path / "Tiny-1B-Q8_0-00001-of-00002.gguf", split__count=2)

    with pytest.raises(FileDamaged, match=r"shard 2 of 2 is missing: Tiny-1B-Q8_0-00002-of-00002.gguf"):
        find(path)


def test_a_truncated_file_names_both_sizes(tmp_path):
    """Exit 8 with what is there and what should be."""
    path = write_tiny_gguf(tmp_path / "Tiny-1B-Q8_0.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])

    with pytest.raises(FileDamaged) as raised:
        find(path)

    assert f"{len(whole) - 7:,}" in str(raised.value)
    assert f"{len(whole):,}" in str(raised.value)


def test_any_cut_of_a_header_is_one_clear_error(tmp_path):
    """Wherever the download broke off, it is a damaged file and never a traceback."""
    path = write_tiny_gguf(tmp_path / "Tiny-1B-Q8_0.gguf")
    whole = path.read_bytes()

    for cut in range(0, 1500, 13):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileDamaged):
            find(path)


def test_what_is_no_gguf_is_refused(tmp_path):
    """A .gguf that is none is damaged; another file is simply no model; a pickle is unsafe."""
    for name in ("page.gguf", "notes.txt", "model.pth"):
        (tmp_path / name).write_text("<html>")

    with pytest.raises(FileDamaged, match="no GGUF"):
        find(tmp_path / "page.gguf")
    with pytest.raises(NotAModel, match="no GGUF"):
        find(tmp_path / "notes.txt")
    with pytest.raises(UnsafeFile, match="pickle"):
        find(tmp_path / "model.pth")


def test_a_projector_is_no_model(tmp_path):
    """By its name, or by its header; the line says what it is."""
    with pytest.raises(NotAModel, match="vision projector"):
        find(write_tiny_gguf(tmp_path / "mmproj-F16.gguf"))
    with pytest.raises(NotAModel, match="projector"):
        find(write_tiny_gguf(tmp_path / "eyes.gguf", architecture="clip"))


def test_a_hub_cache_blob_is_known_by_its_bytes(tmp_path):
    """A file without a suffix is a model if its bytes say so."""
    blob = write_tiny_gguf(tmp_path / ("ab" * 32), file_type=7, general__name="Tiny 1B")

    assert find(blob).candidates[0].quant == "Q8_0"


def test_a_missing_path_gets_the_nearest_name_beside_it(tmp_path):
    """Exit 3; a path whose folder is missing too gets a line all the same."""
    write_tiny_gguf(tmp_path / "Tiny-1B-Q8_0.gguf")

    with pytest.raises(ModelNotFound, match=r"Did you mean Tiny-1B-Q8_0.gguf"):
        find(tmp_path / "Tiny-1B-Q8_1.gguf")
    with pytest.raises(ModelNotFound, match="Check the path"):
        find(tmp_path / "nowhere" / "a.gguf")
    with pytest.raises(ModelNotFound, match="Check the path"):
        find("~no-such-user/a.gguf")


def test_a_link_that_leads_nowhere_is_damaged(tmp_path):
    """The name is there, the bytes are not."""
    (tmp_path / "a-Q8_0.gguf").symlink_to(tmp_path / "gone")

    with pytest.raises(FileDamaged, match="leads nowhere"):
        find(tmp_path / "a-Q8_0.gguf")


def test_a_folder_of_one_model_gives_all_its_quants(tmp_path):
    """At the top and in sub-folders named by a quant."""
    write_tiny_gguf(tmp_path / "Tiny-1B-Q8_0.gguf")
    write_tiny_gguf(tmp_path / "Q4_0" / "Tiny-1B-Q4_0.gguf", tensor_type="Q4_0")
    write_tiny_gguf(tmp_path / "mmproj-F16.gguf")

    found = find(tmp_path)

    assert found.base_model == "Tiny-1B"
    assert sorted(one.quant for one in found.candidates) == ["Q4_0", "Q8_0"]
    assert all(Path(one.files[0].path).is_absolute() for one in found.candidates)


def test_one_damaged_file_of_a_folder_hides_nothing(tmp_path):
    """As in a folder of repos."""
    write_tiny_gguf(tmp_path / "Tiny-1B-Q8_0.gguf")
    (tmp_path / "Tiny-1B-Q4_0.gguf").write_bytes(b"GGUF")

    defects = {one.quant: one.defect and one.defect.reason for one in find(tmp_path).candidates}

    assert defects == {"Q8_0": None, "Q4_0": "incomplete"}


def test_a_folder_of_several_models_is_ambiguous(tmp_path):
    """The files are the choices."""
    paths = [write_tiny_gguf(tmp_path / f"{name}-Q8_0.gguf") for name in ("Tiny-1B", "Other-3B")]

    with pytest.raises(AmbiguousModel) as raised:
        find(tmp_path)

    assert set(raised.value.nearest) == {str(path) for path in paths}


def test_a_folder_that_is_no_model_says_what_was_looked_for(tmp_path):
    """Exit 3; a folder of repos is recognised, and the option named."""
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotAModel, match=r"no \.gguf file"):
        find(tmp_path)

    write_tiny_gguf(tmp_path / "org" / "Tiny-1B-GGUF" / "Tiny-1B-Q8_0.gguf")
    with pytest.raises(NotAModel, match=f"--models-dir {tmp_path}"):
        find(tmp_path)


def test_the_real_model_is_read_by_path(smollm2_q4_1, tmp_path):
    """SmolLM2-135M's own file: its name, label and weights."""
    path = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path.symlink_to(smollm2_q4_1)

    one = find(path).candidates[0]

    assert (one.base_model, one.quant, one.defect) == ("SmolLM2-135M-Instruct", "Q4_1", None)
    assert one.size_bytes == 98_362_432
    assert one.weights is not None
    assert 5.5 < one.weights.bpw < 6


def test_a_path_that_cannot_be_looked_at_is_one_line(tmp_path):
    """Exit 1: a name too long for the file system is no traceback."""
    with pytest.raises(Failure, match="cannot be read: File name too long"):
        find(tmp_path / ("a" * 5000 + ".gguf"))


def test_a_moved_file_is_gone(tmp_path):
    """Between the decision and the launch."""
    path = write_tiny_gguf(tmp_path / "Tiny-1B-Q8_0.gguf")
    one = find(path).candidates[0]
    shutil.move(path, tmp_path / "moved.gguf")

    with pytest.raises(FileDamaged, match="gone"):
        FileSource().local_path(one)
