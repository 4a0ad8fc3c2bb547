"""What the head of a repo's README.md says of the base model and the licence.

Pure, and no YAML library: of the head's block three keys are read, in the two forms that the Hub's cards use (a value
on the line, or a list). What cannot be read is as if it were not there: a card is somebody's prose, never an error.
"""

import re
from dataclasses import dataclass

__all__ = ["MAX_HEAD_BYTES", "ModelCard", "parse_card"]

MAX_HEAD_BYTES = 64 * 1024  # of a README; the longest heads of real cards (language lists) are under 8 KiB

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`base_models`: the ids it names. `relation`: what the repo is to them (`quantized`, `finetune`, ...).

    `license` is the Hub's id of it (`apache-2.0`).
    """

    base_models: tuple[str, ...] = ()
    relation: str | None = None
    license: str | None = None


def parse_card(text: str) -> ModelCard:
    """The card that `text`, the start of a README.md, carries in its head; an empty one where it carries none."""
    head = _head(text)
    relation = _values(head, "base_model_relation")
    ids = [value for value in _values(head, "base_model") if _REPO_ID.fullmatch(value)]
    licenses = [value for value in _values(head, "license") if value]
    return ModelCard(
        tuple(dict.fromkeys(ids)), relation[0].lower() if relation else None, licenses[0] if licenses else None
    )


def _head(text: str) -> list[str]:
    lines = text[:MAX_HEAD_BYTES].removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return []
    body = lines[1:]
    return body[: next((n for n, line in enumerate(body) if line.rstrip() == "---"), 0)]


def _values(head: list[str], key: str) -> list[str]:
    start = next((n for n, line in enumerate(head) if line.startswith(f"{key}:")), None)
    if start is None:
        return []
    value = _plain(head[start].partition(":")[2])
    if value.startswith("[") and value.endswith("]"):
        return [_plain(item) for item in value[1:-1].split(",")]
    if value:
        return [value]
    items = []
    for line in head[start + 1 :]:
        if not line.lstrip().startswith("- "):
            break
        items.append(_plain(line.lstrip()[2:]))
    return items


def _plain(text: str) -> str:
    return re.sub(r"\s#.*", "", text).strip().strip("\"'")
