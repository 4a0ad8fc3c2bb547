"""What the text MODEL says: a name, a repo, an address or a path, and the quant or revision written behind it.

Pure: works on text alone. Whether a path exists is the sources' business (`source_pick`); which model a name means,
`name_match` decides.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from qrun.errors import UsageError
from qrun.quant import parse_quant, split_quant

__all__ = ["ModelRef", "is_path", "nearest", "parse_model"]

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co")
_ADDRESS = re.compile(r"^(?:(?:https?|hf)://|(?:www\.)?(?:huggingface\.co|hf\.co)/)", re.IGNORECASE)
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")
_REVISION = re.compile(r"(.+)@([\w./-]+)")
_ALIKE = 0.55  # of difflib's ratio: below it a name is not offered as what was meant


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What MODEL says: a name, repo_id, path or address, and the quant or revision written behind it.

    `file` is the one file of a repo that an address points at.
    """

    text: str
    name: str
    quant: str | None = None
    revision: str | None = None
    file: str | None = None


def parse_model(text: str) -> ModelRef:
    """The parts of MODEL. What follows the last `:` is a quant if it parses as one, else part of the name.

    A tag that ends in a quant (`llama3:8b-instruct-q4_K_M`) gives both. Raises UsageError for an empty text and for an
    address that names no repo.
    """
    text = text.strip()
    if not text:
        raise UsageError("MODEL is empty. Give a model's name, a repo (ORG/NAME), or the path of a GGUF file.")
    if _ADDRESS.match(text):
        return _parse_address(text)
    if is_path(text):
        name, quant = _split_tag(text)
        return ModelRef(text, name, quant)
    name, quant = _split_tag(text)
    if revision := _REVISION.fullmatch(name):
        name, before = _split_tag(revision[1])
        return ModelRef(text, name, quant or before, revision[2])
    return ModelRef(text, name, quant)


def is_path(text: str) -> bool:
    """Whether `text` can only be a path: absolute, relative to here or home, on a drive, or a GGUF file's name."""
    name, _ = _split_tag(text)
    if name.startswith(("/", "./", "../", ".\\", "..\\", "\\\\", "~")) or name in (".", ".."):
        return True
    return bool(_DRIVE.match(name)) or name.lower().endswith(".gguf")


def nearest(name: str, among: Iterable[str], most: int = 5) -> tuple[str, ...]:
    """The names of `among` most like `name`, best first, equals in alphabetical order; none where none is like it.

    Organisations count only where `name` has one; case and punctuation do not.
    """
    scored = [(_likeness(name, other), other) for other in sorted(set(among), key=str.casefold)]
    alike = sorted((pair for pair in scored if pair[0] >= _ALIKE), key=lambda pair: -pair[0])
    return tuple(other for _, other in alike[:most])


def _split_tag(text: str) -> tuple[str, str | None]:
    head, colon, tail = text.rpartition(":")
    if not colon or not head or _DRIVE.match(text[len(head) - 1 :]):
        return text, None
    if quant := parse_quant(tail):
        return head, quant
    if "/" in tail or "\\" in tail:
        return text, None
    tag, quant = split_quant(tail)
    return f"{head}:{tag}", quant


def _parse_address(text: str) -> ModelRef:
    """`https://huggingface.co/ORG/NAME`, with `/tree/REV`, `/blob/REV/FILE`, `:QUANT` or `@REV` behind it."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
    except ValueError as error:
        raise UsageError(f"{text} is no address: {error}.") from error
    path = f"{parts.netloc}{parts.path}" if parts.scheme.lower() == "hf" else parts.path
    pieces = [unquote(piece) for piece in path.split("/") if piece]
    known = parts.scheme.lower() == "hf" or (parts.hostname or "").lower() in _HOSTS
    if not known or len(pieces) < 2:  # noqa: PLR2004  # ORG and NAME
        raise UsageError(f"{text} names no model. An address looks like https://huggingface.co/ORG/NAME.")
    ref = parse_model("/".join(pieces[:2]))
    kind, rest = (pieces[2], pieces[3:]) if len(pieces) > 2 else ("", [])  # noqa: PLR2004  # what follows ORG/NAME
    if kind not in ("tree", "blob", "resolve", "raw") or not rest:
        return ModelRef(text, ref.name, ref.quant, ref.revision)
    tree_revision, *file = rest
    return ModelRef(text, ref.name, ref.quant, tree_revision, "/".join(file) or None if kind != "tree" else None)


def _likeness(name: str, other: str) -> float:
    other = other if "/" in name else other.rpartition("/")[2]
    one, two = _squeezed(name), _squeezed(other)
    shared = len(set(one.split()) & set(two.split())) / max(1, len(set(one.split())))
    return 0.7 * difflib.SequenceMatcher(None, one, two).ratio() + 0.3 * shared


def _squeezed(name: str) -> str:
    return " ".join(re.findall(r"[a-z]+|[0-9.]*[0-9][a-z]?", name.lower()))
