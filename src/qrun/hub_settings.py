"""How the Hugging Face Hub is reached and where what it sends is kept, as one value.

Pure. `config` fills it from the environment, by the variables and rules of huggingface_hub itself, so that one login,
one cache and one mirror serve both.
"""

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DEFAULT_ENDPOINT", "DEFAULT_RETRY_S", "HubSettings"]

DEFAULT_ENDPOINT = "https://huggingface.co"
DEFAULT_RETRY_S = 20.0


@dataclass(frozen=True, slots=True)
class HubSettings:
    """The Hub as this process sees it.

    `cache_dir` is the Hub's own cache folder (`models--ORG--NAME` lie in it), which other tools share. `token_path` is
    where `hf auth login` puts its token; `token` the one in the environment, which comes first. `retry_s`: how long in
    all a refused connection or a 5xx is tried again. `listings_dir` keeps listings and headers that were read before.
    """

    cache_dir: Path
    listings_dir: Path
    token_path: Path
    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = field(default=None, repr=False)
    implicit_token: bool = True  # False: HF_HUB_DISABLE_IMPLICIT_TOKEN, no token is sent unasked
    offline: bool = False
    retry_s: float = DEFAULT_RETRY_S
    xet: bool = False  # QRUN_XET=1: by hf_xet where a repo has it

    @property
    def shown_endpoint(self) -> str:
        """The endpoint as messages name it: without the user and password that a mirror's address may hold."""
        scheme, separator, rest = self.endpoint.rpartition("://")
        host, slash, path = rest.partition("/")
        return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
