"""What `qrun show` found of a model, for people and for programs. What is unknown is a dash, or null."""

from collections.abc import Iterator

import click

from qrun.errors import Failure, QrunError
from qrun.model import Candidate, ModelShape
from qrun.quality import expected_quality
from qrun.render import Column, print_json, print_table
from qrun.resolution_json import bpw_of, error_json, files_json, quality_json
from qrun.show import Shown, kv_cache_bytes_per_token
from qrun.units import size

__all__ = ["show_refusal", "show_shown", "show_template"]

SCHEMA = 1
_COLUMNS = (
    Column("Format"),
    Column("Quant"),
    Column("Bits", right=True),
    Column("Size", right=True),
    Column("KLD", right=True),
    Column("Files", right=True),
    Column("Stored"),
    Column("Repo", keeps=False),
    Column("Defect", keeps=False),
)
_UNKNOWN = "-"
_LABEL = 16  # characters, the longest label and two blanks
_BILLION, _MILLION = 10**9, 10**6


def show_shown(model: str, shown: Shown, *, as_json: bool) -> None:
    """Print what is known of `model`, as it was asked for, on stdout."""
    if as_json:
        print_json(_document(model, shown, None))
        return
    for label, value in _heading(shown):
        click.echo(f"{label:<{_LABEL}}{value}")
    click.echo()
    print_table(_COLUMNS, [_row(one) for one in shown.quants])
    for warning in shown.warnings:
        click.echo(f"Warning: {warning}")


def show_refusal(model: str, error: QrunError) -> None:
    """Print the document of a `model` that cannot be shown."""
    print_json(_document(model, None, error))


def show_template(shown: Shown) -> None:
    """Print the chat template alone, as it stands. Raises Failure where none is known."""
    if shown.template.text is None:
        no = "has no chat template" if shown.template.present is False else "is not known to have a chat template"
        raise Failure(f"{shown.base_model} {no}.", "Look into another of its repos: qrun show ORG/NAME --template.")
    click.echo(shown.template.text)


def _heading(shown: Shown) -> Iterator[tuple[str, str]]:
    card = shown.card
    gate = {True: " (gated: its terms are to be accepted)", False: "", None: ""}[card.gated]
    yield "Model", f"{card.repo_id or shown.base_model}{gate}"
    if card.repo_id not in (None, shown.base_model):
        yield "Base model", shown.base_model
    yield "Licence", card.license or _UNKNOWN
    yield "Architecture", _architecture(shown)
    yield from _dimensions(shown.shape)
    yield "Chat template", _template(shown)
    yield "Downloads", _UNKNOWN if card.downloads is None else f"{card.downloads:,} in 30 days"
    yield "Last modified", (card.last_modified or _UNKNOWN).partition("T")[0]


def _architecture(shown: Shown) -> str:
    if shown.shape is None:
        return _UNKNOWN
    return f"{shown.shape.architecture}, {_parameters(shown.n_params)} parameters"


def _parameters(n_params: int | None) -> str:
    if n_params is None:
        return _UNKNOWN
    if n_params >= _BILLION:
        return f"{n_params / _BILLION:.2f} B"
    return f"{n_params / _MILLION:.1f} M" if n_params >= _MILLION else f"{n_params:,}"


def _dimensions(shape: ModelShape | None) -> Iterator[tuple[str, str]]:
    if shape is None:
        yield from ((label, _UNKNOWN) for label in ("Layers", "Context", "Vocabulary", "KV cache"))
        return
    kv_heads = sorted({layer.n_head_kv for layer in shape.layers if layer.n_head_kv})
    told = " to ".join(map(str, dict.fromkeys((*kv_heads[:1], *kv_heads[-1:])))) or "no"
    yield "Layers", f"{shape.n_layer}, embedding size {shape.n_embd}, {shape.n_head} heads, {told} KV heads"
    if shape.n_expert:
        yield "Experts", f"{shape.n_expert}, {shape.n_expert_used} used"
    yield "Context", _UNKNOWN if shape.n_ctx_train is None else f"{shape.n_ctx_train} tokens, as trained"
    if window := _window(shape):
        yield "Sliding window", f"{window} tokens in {_n_sliding(shape)} of {shape.n_layer} layers"
    yield "Vocabulary", f"{shape.n_vocab} tokens"
    yield "KV cache", f"{kv_cache_bytes_per_token(shape):,} bytes a token (f16)"


def _window(shape: ModelShape) -> int | None:
    return max((layer.window for layer in shape.layers if layer.window is not None), default=None)


def _n_sliding(shape: ModelShape) -> int:
    return sum(layer.window is not None for layer in shape.layers)


def _template(shown: Shown) -> str:
    template = shown.template
    if template.present is None:
        return _UNKNOWN
    where = "/".join(part for part in (template.repo_id, template.path) if part)
    return f"{'yes' if template.present else 'none'}, by {where}"


def _row(candidate: Candidate) -> list[str]:
    bpw = bpw_of(candidate)
    return [
        candidate.format,
        candidate.quant,
        _UNKNOWN if bpw is None else f"{bpw:.2f}",
        size(candidate.size_bytes),
        _UNKNOWN if candidate.defect else f"{expected_quality(candidate).kld:.4f}",
        str(len(candidate.files)),
        "yes" if candidate.stored else "",
        candidate.repo_id or candidate.files[0].path,
        f"{candidate.defect.reason.replace('_', ' ')}: {candidate.defect.detail}" if candidate.defect else "",
    ]


def _document(model: str, shown: Shown | None, error: QrunError | None) -> dict[str, object]:
    """Every key is there whatever happened, in the order of docs/the-hub.md."""
    card = shown.card if shown else None
    return {
        "schema": SCHEMA,
        "model": model,
        "base_model": shown.base_model if shown else None,
        "repo_id": card.repo_id if card else None,
        "gated": card.gated if card else None,
        "license": card.license if card else None,
        "downloads": card.downloads if card else None,
        "last_modified": card.last_modified if card else None,
        "architecture": _shape(shown.shape, shown.n_params) if shown and shown.shape else None,
        "chat_template": _template_json(shown) if shown else None,
        "quants": [_quant(one) for one in shown.quants] if shown else [],
        "warnings": list(shown.warnings) if shown else [],
        "error": error_json(error),
    }


def _shape(shape: ModelShape, n_params: int | None) -> dict[str, object]:
    return {
        "name": shape.architecture,
        "n_params": n_params,
        "n_layer": shape.n_layer,
        "n_embd": shape.n_embd,
        "n_head": shape.n_head,
        "n_head_kv": max(layer.n_head_kv for layer in shape.layers),
        "n_expert": shape.n_expert,
        "n_expert_used": shape.n_expert_used,
        "n_ctx_train": shape.n_ctx_train,
        "sliding_window": _window(shape),
        "n_layer_sliding": _n_sliding(shape),
        "n_vocab": shape.n_vocab,
        "kv_cache_bytes_per_token": kv_cache_bytes_per_token(shape),
    }


def _template_json(shown: Shown) -> dict[str, object]:
    template = shown.template
    return {
        "present": template.present,
        "repo_id": template.repo_id,
        "path": template.path,
        "text": template.text,
    }


def _quant(candidate: Candidate) -> dict[str, object]:
    defect = candidate.defect
    return {
        "repo_id": candidate.repo_id,
        "revision": candidate.revision,
        "format": candidate.format,
        "quant": candidate.quant,
        "bpw": bpw_of(candidate),
        "size_bytes": candidate.size_bytes,
        "n_files": len(candidate.files),
        "files": files_json(candidate),
        "quality": None if defect else quality_json(expected_quality(candidate)),
        "stored": candidate.stored,
        "defect": {"reason": defect.reason, "detail": defect.detail} if defect else None,
    }
