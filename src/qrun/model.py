"""A model as numbers: its shape, the bytes of its weights, and the files of one quantization of it.

Pure values; `gguf_header` makes shapes and weights of a file's header. Sizes are bytes, unknown is None.
"""

from dataclasses import dataclass
from typing import Literal

__all__ = ["FORMATS", "Candidate", "Defect", "Format", "LayerShape", "ModelFile", "ModelShape", "Weights"]

Format = Literal["gguf", "mlx", "exl2", "exl3", "awq", "gptq", "fp8", "bnb", "safetensors"]
FORMATS: tuple[Format, ...] = ("gguf", "mlx", "exl2", "exl3", "awq", "gptq", "fp8", "bnb", "safetensors")


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer keeps per sequence: keys and values of each token, or a recurrent state of fixed size."""

    n_head_kv: int = 0
    head_dim_k: int = 0
    head_dim_v: int = 0  # 0 where only K is kept (MLA)
    window: int | None = None  # sliding window in tokens; None: the whole context
    state_bytes: int = 0  # recurrent state (F32) of one sequence


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions that memory and speed follow from. `layers` has one entry per block, draft heads excluded.

    `recurrent_width`: numbers a token that live at a time in a recurrent layer. `ffn_gated`: up has a gate beside it.
    `layer_input_width`: of the embeddings that each layer is given besides (Gemma 3n and 4).
    """

    architecture: str
    n_layer: int
    n_embd: int
    n_head: int
    n_ff: int
    n_vocab: int
    n_ctx_train: int | None
    layers: tuple[LayerShape, ...]
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_exp: int = 0
    fused_qkv: bool = False
    ffn_gated: bool = True
    recurrent_width: int = 0
    layer_input_width: int = 0


@dataclass(frozen=True, slots=True)
class Weights:
    """The bytes of a model's tensors and where they lie. `expert_bytes`: the routed experts' part of each layer."""

    total_bytes: int
    n_params: int
    token_embd_bytes: int  # the table that tied models use as output head too
    output_bytes: int  # the output head; 0 where it is tied to the embeddings
    layer_bytes: tuple[int, ...]
    expert_bytes: tuple[int, ...]
    type_bytes: tuple[tuple[str, int], ...]  # ggml type name -> bytes, largest first
    other_input_bytes: int = 0  # further tables of the input (positions, per-layer embeddings)
    largest_bytes: int = 0  # the largest single tensor of any layer
    estimated: bool = False  # by shape and label, not from the file's own list of tensors

    @property
    def tied(self) -> bool:
        """Whether the embeddings serve as output head too."""
        return self.output_bytes == 0

    @property
    def bpw(self) -> float:
        """Bits per weight over the whole model."""
        return 8 * self.total_bytes / self.n_params


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a repo; `path` is relative to the repo, `sha256` None where it is not known without reading it."""

    path: str
    size_bytes: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Defect:
    """Why a candidate cannot be taken whatever the machine: one of the resolver's reasons, and its detail."""

    reason: Literal["incomplete", "mislabelled", "unsafe", "architecture_unsupported", "access_denied", "too_large"]
    detail: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One quantization of a base model in one repo: what the resolver chooses among.

    `repo_id` is None for a file or folder outside any repo; then the files' paths are absolute. The first file is the
    one the engine is given (of shards, the first). `base_model` is the base's repo_id or, where no organisation is
    known, its bare name.
    """

    repo_id: str | None
    revision: str | None
    publisher: str | None
    base_model: str
    files: tuple[ModelFile, ...]
    format: Format
    quant: str
    shape: ModelShape | None = None
    weights: Weights | None = None
    has_imatrix: bool | None = None
    has_chat_template: bool | None = None
    defect: Defect | None = None
    ref: str | None = None  # the branch or tag that `revision` was read from; None: no Hub repo
    downloads: int | None = None  # of its repo in the last 30 days, as the Hub counts them
    last_modified: str | None = None  # of its repo, ISO 8601
    stored: bool = False  # whole on this disk already

    @property
    def size_bytes(self) -> int:
        """All its files together."""
        return sum(file.size_bytes for file in self.files)
