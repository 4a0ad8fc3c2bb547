from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrun.errors import UnsafeFile
from qrun.hub_info import HubFile
from qrun.model import ModelFile
from qrun.store_layout import OWN_SUFFIXES, RepoLayout, blob_key, check_path, check_paths

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "ab" * 32
CACHE = Path("/cache")
LAYOUT = RepoLayout(CACHE, "org/model-GGUF")

# Texts that are near to what a bad Hub would try, and any others.
PIECES = ["", ".", "..", "a", "A", "nul", "CON.txt", "com1", "b.gguf", "~", "-", " ", "c:", "\\", "\\\\host", "é", "\0"]
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), min_size=1, max_size=5).map("/".join)


def test_places_are_those_of_huggingface_hub(tmp_path: Path):
    """Every path that huggingface_hub computes for a repo is the one computed here."""
    from huggingface_hub.file_download import _get_pointer_path, repo_folder_name

    layout = RepoLayout(tmp_path, "org/model-GGUF")
    folder = tmp_path / repo_folder_name(repo_id="org/model-GGUF", repo_type="model")

    assert layout.folder == folder
    assert str(layout.file(COMMIT, "a/b.gguf")) == _get_pointer_path(str(folder), COMMIT, "a/b.gguf")
    assert layout.blob(SHA256) == folder / "blobs" / SHA256
    assert layout.ref("refs/pr/1") == folder / "refs" / "refs" / "pr" / "1"
    assert layout.lock(SHA256) == tmp_path / ".locks" / folder.name / f"{SHA256}.lock"


def test_unfinished_files_have_names_that_no_other_tool_writes_or_resumes():
    """They end as huggingface_hub's do, so that it lists and prunes them, and are none of the names it opens."""
    own = [LAYOUT.partial(SHA256), LAYOUT.journal(SHA256), LAYOUT.set_aside(SHA256), LAYOUT.staged(SHA256)]

    assert all(path.name.endswith(".incomplete") and path.parent == LAYOUT.blobs for path in own)
    assert sorted(path.name.removeprefix(SHA256) for path in own) == sorted(OWN_SUFFIXES)
    assert all(not path.name.removeprefix(f"{SHA256}.").startswith("incomplete") for path in own)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../x", "leave the store"),
        ("a/../../x", "leave the store"),
        ("/etc/passwd", "leave the store"),
        ("a//b", "leave the store"),
        ("a/.", "leave the store"),
        ("", "leave the store"),
        ("..\\x", "backslash"),
        ("\\\\host\\share", "backslash"),
        ("C:/x", "colon"),
        ("c:x", "colon"),
        ("model.gguf:stream", "colon"),
        ("a\0b", "cannot be printed"),
        ("a\nb", "cannot be printed"),
        ("a\udc80b", "cannot be printed"),
        ("NUL", "Windows"),
        ("a/con.gguf", "Windows"),
        ("lpt1 .txt", "Windows"),
        ("COM\u00b9", "Windows"),
        ("a./b", "Windows"),
        ("a ", "Windows"),
        ("x" * 256, "too long"),
    ],
)
def test_path_that_is_not_plainly_relative_is_refused_in_one_line(path: str, why: str):
    """A path from a Hub that could leave the store, or that a system cannot write, is refused with exit 8."""
    with pytest.raises(UnsafeFile, match=why) as refused:
        LAYOUT.file(COMMIT, path)

    assert refused.value.exit_code == 8
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("path", ["model.gguf", "a/b/c.safetensors", "..a", ".gitattributes", "é.gguf", "nullify.txt"])
def test_plain_path_is_taken(path: str):
    """What repos really hold is not refused."""
    assert LAYOUT.file(COMMIT, path) == LAYOUT.snapshots / COMMIT / path


@given(HOSTILE)
def test_no_accepted_path_leaves_its_folder(path: str):
    """Whatever a Hub names: it is refused, or lies below the commit's folder by the rules of POSIX and of Windows."""
    with suppress(UnsafeFile):
        check_path(path)
        _assert_stays_below(path)


def _assert_stays_below(path: str):
    posix, windows = PurePosixPath(path), PureWindowsPath(path)

    assert not posix.is_absolute()
    assert not windows.drive
    assert not windows.root
    assert ".." not in windows.parts
    assert posix.parts == windows.parts == tuple(path.split("/"))
    assert LAYOUT.file(COMMIT, path).relative_to(LAYOUT.snapshot(COMMIT)).as_posix() == path


@given(HOSTILE)
def test_no_accepted_name_of_a_repo_or_branch_leaves_the_cache(name: str):
    """A repo's folder lies right below the cache, a ref below the repo's refs, or the name is refused."""
    with suppress(UnsafeFile):
        assert RepoLayout(CACHE, name).folder.parent == CACHE
    with suppress(UnsafeFile):
        assert LAYOUT.ref(name).relative_to(LAYOUT.refs).as_posix() == name


@given(HOSTILE)
def test_refusal_is_one_printable_line(path: str):
    """Nothing that a Hub names can write to the terminal what it likes."""
    try:
        check_path(path, "org/model/")
        said = ""
    except UnsafeFile as refused:
        said = str(refused)

    assert said.isprintable()


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a/..", "a--b/c", "/x", "a/", ".hidden", "a b", "é/x", "x" * 97])
def test_name_that_is_no_repos_is_refused(name: str):
    """A repo_id is ORG/NAME or NAME, of letters, digits, dots, dashes and underscores."""
    with pytest.raises(UnsafeFile, match="no repo's name"):
        RepoLayout(CACHE, name)


@pytest.mark.parametrize("commit", ["", "main", "..", COMMIT.upper(), COMMIT[:-1], f"{COMMIT}/.."])
def test_commit_is_forty_hexadecimal_digits(commit: str):
    """A branch's name, or a path, is no commit."""
    with pytest.raises(UnsafeFile, match="is no commit"):
        LAYOUT.snapshot(commit)


@pytest.mark.parametrize("key", ["", "..", "../../x", SHA256.upper(), SHA256[:-1], f"{SHA256}x"])
def test_checksum_that_is_none_names_no_blob(key: str):
    """A blob is named by a sha256 or a git id, and by nothing else that a Hub says."""
    for place in (LAYOUT.blob, LAYOUT.partial, LAYOUT.journal, LAYOUT.set_aside, LAYOUT.staged, LAYOUT.lock):
        with pytest.raises(UnsafeFile, match="neither a sha256 nor a git id"):
            place(key)


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["a.gguf", "A.gguf"], "same file"),
        (["a.gguf", "a.gguf"], "same file"),
        (["\u00e9", "e\u0301"], "same file"),
        (["a", "A/b"], "a file and a folder"),
        (["x/a/b", "x/a"], "a file and a folder"),
    ],
)
def test_paths_that_are_one_file_somewhere_are_refused(paths: list[str], why: str):
    """Names that differ in case or accents alone are one file on macOS and Windows."""
    with pytest.raises(UnsafeFile, match=why):
        check_paths(paths)


def test_files_of_common_repos_are_no_twins():
    """Shards, folders and files that share a beginning are different files."""
    check_paths(["a/b", "a/c", "ab", "a-00001-of-00002.gguf", "a-00002-of-00002.gguf"])


def test_blob_is_named_by_sha256_else_by_git_id():
    """As the Hub's ETag: LFS files have a sha256, others git's id; of a file known by name alone there is none."""
    assert blob_key(HubFile("a", 1, SHA256, blob_id=COMMIT)) == SHA256
    assert blob_key(HubFile("a", 1, None, blob_id=COMMIT)) == COMMIT
    assert blob_key(ModelFile("a", 1, SHA256)) == SHA256
    assert blob_key(ModelFile("a", 1)) is None
