"""A client that costs next to nothing: raw HTTP over asyncio, one process, frames neither parsed nor kept.

On a machine of two cores a heavy client would be measured along with the server; this one searches each block of bytes
for two marks and looks at the last frame alone.
"""

import asyncio
import json
import re
import time
from dataclasses import dataclass

__all__ = ["Block", "StreamFailed", "Target", "run_block", "stream_once"]

_FIRST_TOKEN = b'"content":"'
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
_TAIL_BYTES = 4096  # the frame that holds the usage, and the end mark behind it


class StreamFailed(Exception):
    """An answer that was refused, cut off, or of another length than asked for."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask: its loopback port, and the model name that its requests carry."""

    port: int
    model: str


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of concurrent requests showed: all tokens over the wall time, and each request's first token."""

    tokens_per_s: float
    ttft_s: tuple[float, ...]
    n_tokens: int


def run_block(target: Target, prompts: list[str], *, n_predict: int) -> Block:
    """Ask `target` all prompts at once, each for exactly `n_predict` tokens. Raises StreamFailed."""
    return asyncio.run(_run_block(target, prompts, n_predict))


async def _run_block(target: Target, prompts: list[str], n_predict: int) -> Block:
    started = time.perf_counter()
    ttft_s = await asyncio.gather(*(stream_once(target, prompt, n_predict=n_predict) for prompt in prompts))
    wall_s = time.perf_counter() - started
    n_tokens = n_predict * len(prompts)
    return Block(n_tokens / wall_s, tuple(ttft_s), n_tokens)


async def stream_once(target: Target, prompt: str, *, n_predict: int) -> float:
    """One streamed chat completion; the seconds from the request to its first token. Raises StreamFailed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        started = time.perf_counter()
        writer.write(_request(target, prompt, n_predict))
        await writer.drain()
        return await _read_answer(reader, started, n_predict)
    finally:
        writer.close()


def _request(target: Target, prompt: str, n_predict: int) -> bytes:
    body = json.dumps(
        {
            "model": target.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": n_predict,
            "ignore_eos": True,  # llama-server's own: every answer has the full length
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{target.port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def _read_answer(reader: asyncio.StreamReader, started: float, n_predict: int) -> float:
    first: float | None = None
    tail = b""
    while block := await reader.read(1 << 16):
        tail = (tail + block)[-_TAIL_BYTES:]
        if first is None and _FIRST_TOKEN in tail:
            first = time.perf_counter() - started
    counted = _COMPLETION_TOKENS.findall(tail)
    if first is None or b"[DONE]" not in tail or not counted or int(counted[-1]) != n_predict:
        raise StreamFailed(
            f"no whole answer of {n_predict} tokens; it ends with {tail[-300:].decode(errors='replace')!r}"
        )
    return first
