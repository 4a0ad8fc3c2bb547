"""A new decision says what it changed, and why."""

from dataclasses import replace

from candidates import LLAMA_3_8B, LLAMACPP, card, model
from qrun.changes import is_same_choice, what_changed
from qrun.model import ModelFile
from qrun.pin import pin_of
from qrun.request import Request
from qrun.resolve import resolve
from qrun.source import FoundModel

OLD, NEW = "a" * 40, "b" * 40


def at(commit, **changes):
    """The model's quants at one commit of their repos."""
    candidates = tuple(replace(one, revision=commit, **changes) for one in model(LLAMA_3_8B).candidates)
    return FoundModel(LLAMA_3_8B, candidates)


def decide(found, hardware=card(12)):  # noqa: B008 - a frozen value
    return resolve(Request(LLAMA_3_8B), found, hardware, (LLAMACPP,))


BEFORE = decide(at(OLD)).require()
PIN = pin_of(BEFORE, decided_at="2026-01-02T03:04:05Z")


def test_the_same_choice_is_told_as_such():
    """Nothing moved: the sentence says so."""
    assert what_changed(PIN, BEFORE.candidate, decide(at(OLD))) == "Decided anew: the choice is the same."


def test_a_commit_that_moved_with_the_same_files_is_no_other_choice():
    """A README that was edited moves the commit and nothing else."""
    after = decide(at(NEW))

    told = what_changed(PIN, BEFORE.candidate, after)

    assert "moved from commit aaaaaaaa to bbbbbbbb, with the same files" in told
    assert is_same_choice(BEFORE.candidate, after.chosen.candidate)


def test_other_bytes_under_the_same_name_are_told():
    """A re-upload is another choice, though repo and label are the same."""
    found = at(NEW)
    files = {id(one): (replace(one.files[0], sha256="0" * 64),) for one in found.candidates}
    found = FoundModel(LLAMA_3_8B, tuple(replace(one, files=files[id(one)]) for one in found.candidates))

    told = what_changed(PIN, BEFORE.candidate, decide(found))

    assert "with other bytes under the same name" in told


def test_another_choice_gives_the_reason_that_the_old_one_lost_by():
    """The sentence names both and the new decision's own reason."""
    after = decide(at(NEW), card(6))

    told = what_changed(PIN, BEFORE.candidate, after)

    assert f"{after.chosen.candidate.quant} of {after.chosen.candidate.repo_id} takes the place of" in told
    assert "too large, needs" in told


def test_a_choice_that_is_gone_is_told():
    """What the repo does not offer any more cannot have lost by a figure."""
    found = at(NEW)
    left = tuple(one for one in found.candidates if one.quant != BEFORE.candidate.quant)

    assert "does not offer it any more" in what_changed(PIN, BEFORE.candidate, decide(FoundModel(LLAMA_3_8B, left)))


def test_where_nothing_is_chosen_any_more_the_old_choice_is_named():
    """A card that is too small now."""
    told = what_changed(PIN, BEFORE.candidate, decide(at(NEW), card(2, ram_gib=3)))

    assert (
        told == f"Decided anew: nothing is chosen any more, {BEFORE.candidate.quant} of {BEFORE.candidate.repo_id} was."
    )


def test_shards_count_in_their_order():
    """Another number of files is another choice."""
    candidate = BEFORE.candidate
    sharded = replace(candidate, files=(*candidate.files, ModelFile("m-00002-of-00002.gguf", 1)))

    assert not is_same_choice(candidate, sharded)
