"""A model named by its path: a GGUF file with its shards, or a folder that holds one model."""

from collections.abc import Sequence
from pathlib import Path

from qrun.errors import AmbiguousModel, Failure, ModelNotFound, NotAModel, UnsafeFile
from qrun.gguf_candidate import gguf_candidates
from qrun.gguf_quant import name_of_file
from qrun.local_files import LocalFile, files_under, read_text_head, subfolders
from qrun.model import Candidate
from qrun.model_card import MAX_HEAD_BYTES, parse_card
from qrun.model_folder import candidates_of, refuse_if_all_damaged, whole_file
from qrun.name_match import is_same_model, name_key
from qrun.names import ModelRef, nearest
from qrun.packed_name import base_names, likeliest_id
from qrun.quant import kind_of_file, quant_of_file, shard_of_file
from qrun.quant_config import is_pickle
from qrun.repo_match import base_of_repo
from qrun.shards import ShardSet, shard_sets
from qrun.source import FoundModel, Report, quiet

__all__ = ["FileSource", "expanded", "holds_model"]

_KINDS = {
    "mmproj": "it is a vision projector",
    "imatrix": "it is an importance matrix",
    "draft": "it is a draft head for speculative decoding",
    "vocab": "it is a vocabulary without weights",
    "audio": "it is the audio part of a model",
}
_GGUF_MAGIC = b"GGUF"
_LOOK_AT = 50  # folders, for a hint


class FileSource:
    """The user's own disk, by path."""

    @property
    def description(self) -> str:
        """Where this looks."""
        return "local files"

    def find(self, model: ModelRef) -> FoundModel:
        """The quants at the path `model.name`.

        Raises ModelNotFound for a path that is not there, NotAModel for one that holds none, AmbiguousModel for a
        folder of several models, FileDamaged for a file that is no whole GGUF, UnsafeFile for a pickle, Failure where
        permission is lacking.
        """
        try:
            path = expanded(model.name).absolute()
            if path.is_dir():
                return _in_folder(model, path)
            if path.exists() or path.is_symlink():
                return _in_file(path)
            near = _beside(path)
            raise ModelNotFound(model.text, str(path.parent), near, hint="" if near else "Check the path.")
        except OSError as error:
            what = f"{error.filename or model.name} cannot be read: {error.strerror or error}."
            raise Failure(what, "Check the path and its permissions.") from error

    def sharpened(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The same: the headers of files on this disk are read when they are found."""
        return tuple(candidates)

    def local_path(self, candidate: Candidate, report: Report = quiet) -> Path:  # noqa: ARG002  # nothing to fetch
        """The candidate's first file, all its files being there. Raises FileDamaged where they changed."""
        return whole_file(Path(), candidate)

    def close(self) -> None:
        """Nothing is held open."""


def expanded(text: str) -> Path:
    """The path that `text` is, `~` as the home folder; where there is no such user's home, as it stands."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def holds_model(path: Path) -> bool:
    """Whether there is a GGUF file at `path`, or a folder that holds a model's files. Unreadable: no."""
    try:
        return bool(_of_one_model(path)) if path.is_dir() else path.is_file() and _is_gguf(path)
    except OSError:
        return False


def _in_file(path: Path) -> FoundModel:
    if is_pickle(path.name):
        raise UnsafeFile(str(path), "it is a pickle, which can run code when it is loaded")
    _refuse_other_kinds(path)
    candidates = gguf_candidates(_with_shards(path), repo_id=None, publisher=None, base_model=_told_beside(path))
    if not candidates:
        raise NotAModel(str(path), "its header says that it is a projector, an adapter or an importance matrix.")
    refuse_if_all_damaged(candidates, lambda _: Path())
    return FoundModel(candidates[0].base_model, candidates)


def _refuse_other_kinds(path: Path) -> None:
    if kind := _KINDS.get(kind_of_file(path.name)):
        raise NotAModel(str(path), f"{kind}. Name the model's own GGUF file.")
    if not _is_gguf(path):
        raise NotAModel(str(path), "it is no GGUF file. Name a .gguf file, or the folder of a model.")


def _is_gguf(path: Path) -> bool:
    """By its name, or by its first bytes: a Hub cache's blob has a hash for a name."""
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as opened:
        return opened.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC


def _with_shards(path: Path) -> Sequence[ShardSet[LocalFile]]:
    """The file, and where it is a shard the others of its set that lie beside it."""
    if shard_of_file(path.name) is None:
        return [ShardSet((_local_file(path),))]  # whatever its name: a Hub cache's blob has no suffix
    name, _, count = _shard(path)
    beside = [found for found in path.parent.iterdir() if (_shard(found)[0], _shard(found)[2]) == (name, count)]
    return shard_sets(_local_file(found) for found in beside)


def _told_beside(path: Path) -> str | None:
    """The base model's id where the card of the file's folder tells one of the name that the file bears."""
    base = _base_of_folder(path.parent)
    return base if is_same_model(base.rpartition("/")[2], name_of_file(path.name, {})) else None


def _shard(path: Path) -> tuple[str, int, int]:
    return shard_of_file(path.name) or ("", 0, 0)


def _local_file(path: Path) -> LocalFile:
    return LocalFile(str(path), path, path.stat().st_size if path.exists() else None)


def _in_folder(model: ModelRef, folder: Path) -> FoundModel:
    files = _of_one_model(folder)
    candidates = _candidates(folder, files)
    if not candidates:
        raise NotAModel(
            str(folder), f"it holds no .gguf file, and no config.json with safetensors.{_repos_hint(folder)}"
        )
    names = {name_key(candidate.base_model) for candidate in candidates}
    if len(names) > 1:
        raise AmbiguousModel(model.text, sorted(candidate.files[0].path for candidate in candidates))
    refuse_if_all_damaged(candidates, lambda _: Path())
    return FoundModel(likeliest_id([candidate.base_model for candidate in candidates]), candidates)


def _candidates(folder: Path, files: Sequence[LocalFile]) -> tuple[Candidate, ...]:
    """A repo's files are all of the one model that its card or name tells; loose files each say what they are."""
    if _is_repo(folder):
        return candidates_of(files, repo_id=None, publisher=None, base_model=_base_of_folder(folder))
    loose = gguf_candidates(shard_sets(files), repo_id=None, publisher=None, base_model=None)
    return loose or candidates_of(files, repo_id=None, publisher=None, base_model=base_names(folder.name)[0])


def _base_of_folder(folder: Path) -> str:
    card = parse_card(read_text_head(folder / "README.md", MAX_HEAD_BYTES))
    return base_of_repo(f"{folder.parent.name}/{folder.name}", card)[0]


def _is_repo(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("README.md", "config.json"))


def _of_one_model(folder: Path) -> tuple[LocalFile, ...]:
    """The files of the model in `folder`: those at its top, in sub-folders named by a quant, or all of a repo's.

    A look of two levels: a folder that was not meant (somebody's home) must not cost a walk through all of it.
    """
    is_repo = _is_repo(folder)
    own = []
    for file in files_under(folder, most_depth=2):
        below, _, _ = file.path.rpartition("/")
        if not below or is_repo or quant_of_file(f"{below.partition('/')[0]}.gguf"):
            own.append(LocalFile(str(file.disk), file.disk, file.size_bytes))
    return tuple(own) if any(_is_weights(file.path) for file in own) else ()


def _is_weights(path: str) -> bool:
    return path.lower().endswith((".gguf", ".safetensors")) or is_pickle(path)


def _repos_hint(folder: Path) -> str:
    """What to do where the folder is one of repos rather than of one model."""
    for organisation in subfolders(folder)[:_LOOK_AT]:
        for repo in subfolders(organisation)[:_LOOK_AT]:
            if any(entry.suffix.lower() in (".gguf", ".safetensors") for entry in repo.iterdir()):
                return f" It looks like a folder of repos: name a model, and give --models-dir {folder}."
    return ""


def _beside(path: Path) -> tuple[str, ...]:
    if not path.parent.is_dir():
        return ()
    return nearest(
        path.name, (entry.name for entry in path.parent.iterdir() if entry.is_dir() or _is_weights(entry.name))
    )
