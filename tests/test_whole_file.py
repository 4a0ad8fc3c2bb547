"""A JSON file is replaced whole or not at all."""

import json

import pytest

from qrun.whole_file import write_json


def test_the_new_document_takes_the_place_of_the_old(tmp_path):
    """Its folder is made, and nothing else is left in it."""
    path = tmp_path / "a" / "b.json"
    write_json(path, {"old": 1})
    write_json(path, {"new": 2})

    assert json.loads(path.read_text()) == {"new": 2}
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old(tmp_path):
    """A failure in the middle loses nothing and leaves nothing half-made."""
    path = tmp_path / "b.json"
    write_json(path, {"old": 1})

    with pytest.raises(TypeError):
        write_json(path, {"new": object()})

    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]
