"""Write src/qrun/data/selftest.gguf: the tiny model every engine must answer with before it counts as installed.

One llama layer over the 256 bytes. The residual stream carries a byte's embedding through a layer of small weights,
and the output matrix is the embedding shifted by one: the likeliest byte after `x` is the byte `x + 1`. An engine that
computes rightly continues "abc" with "def"; one that merely starts does not. The matrices are Q8_0, so that the
quantized kernels are run too. The same bytes come out each time. Needs the `gguf` package (a development dependency).

    python scripts/make_selftest_model.py [FILE]
"""

import sys
from pathlib import Path

import gguf
import numpy as np

N_EMBD = 64
N_HEAD = 2
N_FF = 64
N_CTX_TRAIN = 512
SPECIALS = ("<s>", "</s>")
LAYER_SCALE = 0.02  # small beside the residual stream: the layer is computed, but does not change the answer
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
DEFAULT = Path(__file__).resolve().parent.parent / "src" / "qrun" / "data" / "selftest.gguf"


def main(argv: list[str]) -> None:
    path = Path(argv[0]) if argv else DEFAULT
    path.parent.mkdir(parents=True, exist_ok=True)
    write_model(path)
    print(f"{path}: {path.stat().st_size} bytes")


def write_model(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    add_metadata(writer)
    add_vocabulary(writer)
    for name, matrix in tensors().items():
        if matrix.ndim == 1:
            writer.add_tensor(name, matrix)
            continue
        packed = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_metadata(writer: gguf.GGUFWriter) -> None:
    writer.add_name("qrun self-test")
    writer.add_license("apache-2.0")
    writer.add_description("Continues each byte with the next one. Made by scripts/make_selftest_model.py.")
    writer.add_block_count(1)
    writer.add_context_length(N_CTX_TRAIN)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // N_HEAD)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    tokens = list(byte_symbols()) + list(SPECIALS)
    kinds = [gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL] * len(SPECIALS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b"])  # one merge, never reached: "ab" is no token; readers refuse an empty list
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_add_bos_token(False)  # noqa: FBT003 - gguf's way
    writer.add_vocab_size(len(tokens))
    writer.add_chat_template(TEMPLATE)


def byte_symbols() -> list[str]:
    """GPT-2's printable symbol for each byte: printable Latin-1 stands for itself, the rest is moved past 255."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    moved = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(moved)) for byte in range(256)]


def tensors() -> dict[str, np.ndarray]:
    random = np.random.RandomState(3)  # not default_rng: the legacy generator's stream is frozen; the new one's is not
    n_vocab = 256 + len(SPECIALS)
    signs = random.choice([-1.0, 1.0], size=(n_vocab, N_EMBD)).astype(np.float32)
    follower = np.roll(signs, 1, axis=0)  # row x + 1 of the output matrix is the embedding of x

    def small(rows: int, columns: int) -> np.ndarray:
        return (random.standard_normal((rows, columns)) * LAYER_SCALE).astype(np.float32)

    ones = np.ones(N_EMBD, dtype=np.float32)
    return {
        "token_embd.weight": signs,
        "blk.0.attn_norm.weight": ones,
        "blk.0.attn_q.weight": small(N_EMBD, N_EMBD),
        "blk.0.attn_k.weight": small(N_EMBD, N_EMBD),
        "blk.0.attn_v.weight": small(N_EMBD, N_EMBD),
        "blk.0.attn_output.weight": small(N_EMBD, N_EMBD),
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": small(N_FF, N_EMBD),
        "blk.0.ffn_up.weight": small(N_FF, N_EMBD),
        "blk.0.ffn_down.weight": small(N_EMBD, N_FF),
        "output_norm.weight": ones,
        "output.weight": follower,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
