"""Names over the whole listing, against hand-made answers: what scripts/bench/names.py prints meets its aims."""

import pytest

from hub_names import measure

LEAST_PRECISION, LEAST_RECALL = 0.99, 0.97  # of repos, from names and file names alone
MOST_CALLS = 20  # of a look-up; a decision has 60


@pytest.fixture(scope="module")
def by_names_alone(tmp_path_factory):
    """Every other row, without a single relation tag; scripts/bench/names.py takes them all."""
    return measure("none", tmp_path_factory.mktemp("names"), every=2)


def test_the_repos_of_a_base_are_found_by_names_alone(by_names_alone):
    """Precision and recall of repos over all spellings; what is missed has no weights in the listing."""
    assert by_names_alone.hits > 700
    assert by_names_alone.precision >= LEAST_PRECISION, by_names_alone.problems
    assert by_names_alone.recall >= LEAST_RECALL, by_names_alone.problems
    assert by_names_alone.misses == by_names_alone.unseen


def test_every_spelling_finds_its_base_and_no_other(by_names_alone):
    """Fine-tunes, other versions, sizes and variants are never taken for it."""
    assert by_names_alone.wrong == by_names_alone.not_found == 0, by_names_alone.problems
    assert by_names_alone.right > 430


def test_no_hard_negative_is_taken(by_names_alone):
    """Repos that look close: fine-tunes, drafts, pruned and later models."""
    assert by_names_alone.negatives > 60
    assert by_names_alone.negatives_matched == 0, by_names_alone.problems


def test_odd_spellings_are_answered_with_choices_or_with_the_nearest(by_names_alone):
    """Ambiguous ones name the choices or warn of the others; closed models and wrong sizes are not found."""
    assert by_names_alone.odd > 30
    assert by_names_alone.odd_right == by_names_alone.odd, by_names_alone.problems


def test_a_look_up_takes_few_calls_and_two_round_trips(by_names_alone):
    """So that the files and headers have theirs; one more where nothing of the id is there, to name the nearest."""
    assert by_names_alone.most_calls <= MOST_CALLS
    assert by_names_alone.most_depth <= 3


def test_the_aims_hold_where_the_hub_shows_no_base(tmp_path):
    """A mirror of quants alone: then ids are read from the quants' names."""
    result = measure("none", tmp_path, bases=False, every=6)

    assert result.precision >= LEAST_PRECISION, result.problems
    assert result.recall >= LEAST_RECALL - 0.02, result.problems
    assert result.negatives_matched == result.wrong == 0, result.problems
