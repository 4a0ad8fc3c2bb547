"""Who may ask: the key, and for a server without one, web pages kept out.

Pure. With a key every route but the health check demands it. Without one a page that some browser on this machine shows
could use the model: so a foreign `Origin` is refused, and a foreign `Host` too, which is how a page gets round the
first (DNS rebinding). No answer carries CORS headers.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from qrun.gateway.envelope import ApiError

__all__ = ["Guard", "is_loopback"]

OPEN_PATHS = frozenset({"/health", "/v1/health"})


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules of one server. `api_key` None: open to this machine; `hosts` None: whatever name it is reached by."""

    api_key: str | None = None
    hosts: frozenset[str] | None = frozenset()  # names it may be called by beside this machine's own

    def refusal(self, path: str, headers: Mapping[str, str]) -> ApiError | None:
        """Why the request is refused; None where it may pass."""
        if path in OPEN_PATHS:
            return None
        if self.api_key is not None:
            return None if _has_key(headers, self.api_key) else _wrong_key(headers)
        if not self._host_is_ours(headers.get("Host")):
            return ApiError(403, "This server answers only to its own host names.", "host_not_allowed")
        if not self._origin_is_ours(headers.get("Origin")):
            return ApiError(403, "Web pages may not use this server. Serve with --api-key.", "origin_not_allowed")
        return None

    def _host_is_ours(self, host: str | None) -> bool:
        return self.hosts is None or host is None or self._is_ours(f"//{host}")

    def _origin_is_ours(self, origin: str | None) -> bool:
        return origin is None or self._is_ours(origin)

    def _is_ours(self, address: str) -> bool:
        try:
            name = urlsplit(address).hostname
        except ValueError:
            return False
        return name is not None and (is_loopback(name) or name in (self.hosts or ()))


def is_loopback(name: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _has_key(headers: Mapping[str, str], key: str) -> bool:
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    given = bearer.strip() if scheme.casefold() == "bearer" else headers.get("X-Api-Key", "")
    # Compared in constant time: how long it takes must not tell how much of a guess was right.
    return hmac.compare_digest(given.encode(errors="surrogateescape"), key.encode(errors="surrogateescape"))


def _wrong_key(headers: Mapping[str, str]) -> ApiError:
    given = "Authorization" in headers or "X-Api-Key" in headers
    sentence = "The API key is wrong." if given else "An API key is needed: send Authorization: Bearer KEY."
    return ApiError(401, sentence, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
