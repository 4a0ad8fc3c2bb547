"""Where a MODEL is looked for: a path on the disk, a name in the folder of repos where one is set, else on the Hub."""

import pytest

from qrun.hub_settings import HubSettings
from qrun.names import parse_model
from qrun.source_file import FileSource
from qrun.source_folder import FolderSource
from qrun.source_pick import pick_source
from qrun.source_stored import StoredSource
from tiny_gguf import write_tiny_gguf


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Opens the source that stands for the Hub, which nobody asks here, in an empty folder."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    settings = HubSettings(tmp_path / "cache", tmp_path / "listings", tmp_path / "token", "http://127.0.0.1:9")
    return lambda: StoredSource(settings)


def picked(text, hub, models_dir=None):
    """The kind of source that MODEL is looked up in."""
    return type(pick_source(parse_model(text), models_dir, hub))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("./x", FileSource),
        ("x.gguf", FileSource),
        ("~/models/x", FileSource),
        ("Tiny-1B", FolderSource),
        ("org/Tiny-1B:Q8_0", FolderSource),
        ("org/astrollama.gguf", FolderSource),
    ],
)
def test_with_a_folder_of_repos_names_are_looked_up_there(hub, tmp_path, text, kind):
    """What can only be a path goes to the disk, a name to the folder of repos."""
    assert picked(text, hub, tmp_path / "models") is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("./x", FileSource),
        ("x.gguf", FileSource),
        ("Tiny-1B", StoredSource),
        ("org/Tiny-1B:Q8_0", StoredSource),
        ("org/astrollama.gguf", StoredSource),
        ("https://huggingface.co/org/Tiny-1B", StoredSource),
        ("x" * 5000, StoredSource),
    ],
)
def test_without_one_names_are_looked_up_on_the_hub(hub, text, kind):
    """The Hub is where models come from; a repo may be called ORG/NAME.gguf."""
    assert picked(text, hub) is kind


def test_a_path_below_a_folder_that_is_here_is_a_path(hub, tmp_path):
    """`sub/x.gguf` with a folder `sub` is a file that is missing, no repo."""
    (tmp_path / "here" / "sub").mkdir()

    assert picked("sub/x.gguf", hub) is FileSource


def test_an_existing_folder_counts_only_if_it_holds_a_model(hub, tmp_path):
    """A checkout that happens to be called like the model does not get in the way of a folder of repos."""
    folder = tmp_path / "here" / "Tiny-1B"
    folder.mkdir()
    assert picked("Tiny-1B", hub, tmp_path / "models") is FolderSource

    write_tiny_gguf(folder / "Tiny-1B-Q8_0.gguf")

    assert picked("Tiny-1B", hub, tmp_path / "models") is FileSource
    assert picked("Tiny-1B", hub) is FileSource
