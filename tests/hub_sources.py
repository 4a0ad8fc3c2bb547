"""Sources over an emulated Hub, with what they asked counted, and small repos for it to hold."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hub_emulator import HubEmulator
from qrun.foreign_files import Places
from qrun.hub_client import HubClient
from qrun.hub_settings import HubSettings
from qrun.kept_files import KeptFiles
from qrun.names import parse_model
from qrun.source_hub import HubSource
from qrun.store import Store
from qrun.store_ledger import Ledger
from tiny_gguf import write_tiny_gguf

__all__ = ["TINY_CONFIG", "CountingClient", "config_bytes", "find", "hub_source", "settings_of", "tiny"]

# The dimensions of what `write_tiny_gguf` writes.
TINY_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


class CountingClient(HubClient):
    """A client that counts how often it waited for a batch of answers: how deep the round trips are."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.depth = 0

    def together(self, calls):
        """As it is, counted."""
        self.depth += bool(calls)
        return super().together(calls)


def settings_of(hub: HubEmulator, folder: Path, **more) -> HubSettings:
    """The settings of a user who has nothing yet."""
    more = {"endpoint": hub.endpoint, "retry_s": 0.2} | more
    return HubSettings(folder / "hub", folder / "listings", folder / "no-token", **more)


@contextmanager
def hub_source(hub: HubEmulator, folder: Path, **more) -> Iterator[tuple[HubSource, CountingClient]]:
    """A source of the Hub and its client."""
    settings = settings_of(hub, folder, **more)
    client = CountingClient(settings)
    files = KeptFiles(Store(settings, client), Places(), Ledger(folder / "ledger"))
    source = HubSource(client, files, endpoint=settings.endpoint)
    try:
        yield source, client
    finally:
        source.close()


def find(hub: HubEmulator, folder: Path, text: str, **more):
    """What the Hub has of MODEL, asked by a user who has nothing yet."""
    with hub_source(hub, folder, **more) as (source, _):
        return source.find(parse_model(text))


def tiny(folder: Path, name: str, **options) -> Path:
    """A whole GGUF file of a few kilobytes."""
    return write_tiny_gguf(folder / "made" / name, **options)


def config_bytes(**more) -> bytes:
    """A config.json of the tiny model, with more in it."""
    return json.dumps(TINY_CONFIG | more).encode()
