"""GGUFs of Ollama, LM Studio and llama.cpp: found in folders laid out as theirs, used in place, never changed."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from qrun.foreign_files import Places, find_foreign
from qrun.model import Candidate, ModelFile

REPO = "quanter/Tiny-1B-GGUF"
BYTES = b"GGUF" + bytes(range(200))
SHA256 = hashlib.sha256(BYTES).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
SHARDS = tuple(f"Q8_0/Tiny-1B-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2))


def foreign_path(candidate, places):
    """The candidate's first file where another tool holds all of it."""
    found = find_foreign(candidate, places)
    return found.paths[0] if found else None


def candidate(*paths: str, sha256: str | None = SHA256, repo_id: str | None = REPO, format_="gguf") -> Candidate:
    """A quant of those files, each with the same bytes."""
    files = tuple(ModelFile(path, len(BYTES), sha256) for path in paths or ("Tiny-1B-Q8_0.gguf",))
    return Candidate(repo_id, "0" * 40, "quanter", "acme/Tiny-1B", files, format_, "Q8_0")


def write(path: Path, content: bytes = BYTES) -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def ollama(root: Path, *, sha256: str = SHA256, content: bytes = BYTES, is_model: bool = True) -> Path:
    """Ollama's store with one model: a blob by digest, and the manifest that names it as a layer."""
    kind = "model" if is_model else "license"
    layers = [
        {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{sha256}", "size": len(content)},
        {"mediaType": "application/vnd.ollama.image.params", "digest": f"sha256:{OTHER}", "size": 5},
    ]
    manifest = {"schemaVersion": 2, "config": {"digest": f"sha256:{OTHER}"}, "layers": layers}
    write(root / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "1b", json.dumps(manifest).encode())
    return write(root / "blobs" / f"sha256-{sha256}", content)


def test_ollama_s_blob_is_found_by_its_sha256(tmp_path):
    """Its name bears no model; the digest in its manifest is the file's sha256."""
    blob = ollama(tmp_path)

    found = find_foreign(candidate(), Places(ollama=(tmp_path / "elsewhere", tmp_path)))

    assert found is not None
    assert (found.tool, found.paths) == ("Ollama", (blob,))


def test_ollama_s_blob_that_no_manifest_names_is_not_taken(tmp_path):
    """Ollama writes the manifest last: without one the blob is not checked yet, or is about to be removed."""
    ollama(tmp_path, is_model=False)

    assert foreign_path(candidate(), Places(ollama=(tmp_path,))) is None


@pytest.mark.parametrize("sha256", [OTHER, None])
def test_ollama_is_not_asked_by_size(tmp_path, sha256):
    """Another file of the same size, or one whose sha256 the Hub did not tell, is none."""
    ollama(tmp_path)

    assert foreign_path(candidate(sha256=sha256), Places(ollama=(tmp_path,))) is None


def test_ollama_s_shards_are_of_no_use(tmp_path):
    """The engine finds the next shard by the first one's name, and a blob has none."""
    ollama(tmp_path)

    assert foreign_path(candidate(*SHARDS), Places(ollama=(tmp_path,))) is None


@pytest.mark.parametrize("home", [".lmstudio", ".cache/lm-studio"])
def test_lm_studio_s_file_is_found_by_repo_name_and_size(tmp_path, home):
    """It keeps `models/ORG/NAME/file` in its home, today's or that of older versions."""
    file = write(tmp_path / home / "models" / REPO / "Tiny-1B-Q8_0.gguf")

    found = find_foreign(candidate(), Places(lmstudio=(tmp_path / ".lmstudio", tmp_path / ".cache" / "lm-studio")))

    assert found is not None
    assert (found.tool, found.paths) == ("LM Studio", (file,))


def test_lm_studio_s_folder_may_be_moved_by_its_settings(tmp_path):
    """`downloadsFolder` of settings.json counts beside the default folder; a damaged file of settings does not harm."""
    home, moved = tmp_path / ".lmstudio", tmp_path / "big disk"
    file = write(moved / REPO / "Tiny-1B-Q8_0.gguf")
    write(home / "settings.json", json.dumps({"downloadsFolder": str(moved)}).encode())

    assert foreign_path(candidate(), Places(lmstudio=(home,))) == file
    write(home / "settings.json", b"{")
    assert foreign_path(candidate(), Places(lmstudio=(home,))) is None


@pytest.mark.parametrize("folder", ["", "Q8_0/"])
def test_whole_sets_of_shards_are_found_beside_each_other(tmp_path, folder):
    """With or without the repo's sub-folder; the first is what the engine is given."""
    first, second = (write(tmp_path / "models" / REPO / folder / Path(path).name) for path in SHARDS)

    found = find_foreign(candidate(*SHARDS), Places(lmstudio=(tmp_path,)))

    assert found is not None
    assert found.paths == (first, second)
    second.unlink()
    assert find_foreign(candidate(*SHARDS), Places(lmstudio=(tmp_path,))) is None


def test_llama_cpp_s_flat_file_is_found_by_name_and_size(tmp_path):
    """Older builds write `ORG_NAME_file.gguf`, sub-folders with underscores too, and an ETag beside."""
    file = write(tmp_path / "quanter_Tiny-1B-GGUF_Tiny-1B-Q8_0.gguf")
    first, second = (write(tmp_path / f"quanter_Tiny-1B-GGUF_{path.replace('/', '_')}") for path in SHARDS)
    write(tmp_path / f"{file.name}.etag", f'"{SHA256}"'.encode())

    found = find_foreign(candidate(), Places(llamacpp=(tmp_path,)))
    shards = find_foreign(candidate(*SHARDS), Places(llamacpp=(tmp_path,)))

    assert found is not None
    assert shards is not None
    assert (found.tool, found.paths, shards.paths) == ("llama.cpp", (file,), (first, second))


@pytest.mark.parametrize("beside", [".etag", ".json"])
def test_llama_cpp_s_file_of_other_bytes_is_not_taken(tmp_path, beside):
    """The ETag of an LFS file is its sha256: the same name and size, and yet another file."""
    file = write(tmp_path / "quanter_Tiny-1B-GGUF_Tiny-1B-Q8_0.gguf")
    etag = f'"{OTHER}"'
    write(file.with_name(file.name + beside), (etag if beside == ".etag" else json.dumps({"etag": etag})).encode())

    assert foreign_path(candidate(), Places(llamacpp=(tmp_path,))) is None
    assert foreign_path(candidate(sha256=OTHER), Places(llamacpp=(tmp_path,))) == file


def test_llama_cpp_s_own_hub_cache_is_found_too(tmp_path):
    """With LLAMA_CACHE set, newer builds lay the Hub's layout there; a link's blob tells the sha256."""
    repo = tmp_path / "models--quanter--Tiny-1B-GGUF"
    blob = write(repo / "blobs" / SHA256)
    link = repo / "snapshots" / ("1" * 40) / "Tiny-1B-Q8_0.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(blob, link.parent))

    assert foreign_path(candidate(), Places(llamacpp=(tmp_path,))) == link
    assert foreign_path(candidate(sha256=OTHER), Places(llamacpp=(tmp_path,))) is None


@pytest.mark.parametrize("content", [BYTES[:-1], BYTES + b"x", bytes(len(BYTES))], ids=["short", "long", "zeros"])
def test_a_file_that_is_not_whole_is_not_taken(tmp_path, content):
    """Another size, or room that was only kept for a download: no GGUF begins with zeros."""
    ollama(tmp_path / "ollama", content=content)
    write(tmp_path / "lm" / "models" / REPO / "Tiny-1B-Q8_0.gguf", content)
    write(tmp_path / "llama" / "quanter_Tiny-1B-GGUF_Tiny-1B-Q8_0.gguf", content)
    places = Places((tmp_path / "ollama",), (tmp_path / "lm",), (tmp_path / "llama",))

    assert find_foreign(candidate(), places) is None


@pytest.mark.parametrize("path", ["../../secret.gguf", "/secret.gguf", "a/../../secret.gguf", "C:\\secret.gguf"])
def test_a_name_from_the_hub_leads_out_of_no_folder(tmp_path, path):
    """What another repo lists is not to be opened elsewhere on this disk."""
    for folder in ("models", "models/quanter", f"models/{REPO}"):
        write(tmp_path / folder / "secret.gguf")

    assert foreign_path(candidate(path), Places(lmstudio=(tmp_path,), llamacpp=(tmp_path,))) is None


def test_what_is_no_gguf_of_a_repo_is_not_looked_for(tmp_path):
    """Local files are where they are, and other formats need more than their weights."""
    ollama(tmp_path)
    places = Places(ollama=(tmp_path,))

    assert find_foreign(candidate(repo_id=None), places) is None
    assert find_foreign(candidate(format_="mlx"), places) is None
    assert find_foreign(candidate(), Places()) is None


def test_other_tools_files_are_never_changed(tmp_path):
    """All folders may be made read-only: the files are found, and neither bytes nor times of anything change."""
    ollama(tmp_path / "ollama")
    write(tmp_path / "lm" / "models" / REPO / "Tiny-1B-Q8_0.gguf")
    write(tmp_path / "llama" / "quanter_Tiny-1B-GGUF_Tiny-1B-Q8_0.gguf")
    everything = sorted(tmp_path.rglob("*"))
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in everything}

    found = [
        find_foreign(candidate(), Places(ollama=(tmp_path / "ollama",))),
        find_foreign(candidate(), Places(lmstudio=(tmp_path / "lm",))),
        find_foreign(candidate(), Places(llamacpp=(tmp_path / "llama",))),
    ]

    for path in everything:
        if path.is_dir():
            path.chmod(0o755)  # so that pytest can remove it
    assert [one and one.tool for one in found] == ["Ollama", "LM Studio", "llama.cpp"]
    assert {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in everything} == before
    assert sorted(tmp_path.rglob("*")) == everything


def test_folders_that_may_not_be_read_hold_nothing(tmp_path, monkeypatch):
    """Ollama's service keeps its models in a home of its own: where that is closed, the search goes on elsewhere."""
    blob = ollama(tmp_path / "closed")
    open_ = write(tmp_path / "lm" / "models" / REPO / "Tiny-1B-Q8_0.gguf")
    original = Path.open

    def refuse(self, *args, **kwargs):
        if self == blob:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)

    assert foreign_path(candidate(), Places((tmp_path / "closed",), (tmp_path / "lm",))) == open_
