"""Whether the Hub can be reached from here: one request without a body, within a few seconds."""

import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException

__all__ = ["HubAnswer", "reach_hub"]


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """The outcome: the HTTP `status` that came back, or `why_not` none did."""

    endpoint: str
    status: int | None
    why_not: str | None = None


def reach_hub(endpoint: str, environ: Mapping[str, str], *, timeout_s: float = 3.0) -> HubAnswer:
    """Ask `endpoint` once. Never raises for an address that is wrong or does not answer, and never takes longer."""
    answers: list[HubAnswer] = []
    # A thread, because looking a name up has a timeout of its own that no socket option shortens.
    asking = threading.Thread(target=lambda: answers.append(_ask(endpoint, environ, timeout_s)), daemon=True)
    asking.start()
    asking.join(timeout_s)
    return answers[0] if answers else HubAnswer(endpoint, None, f"no answer within {timeout_s:g} s")


def _ask(endpoint: str, environ: Mapping[str, str], timeout_s: float) -> HubAnswer:
    try:
        request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "qrun"})  # noqa: S310 - _opener() has no other schemes
        with _opener(environ).open(request, timeout=timeout_s) as response:
            return HubAnswer(endpoint, response.status)
    except urllib.error.HTTPError as error:
        with error:
            return HubAnswer(endpoint, error.code)  # a redirect or a refusal: it answered, which is what was asked
    except urllib.error.URLError as error:
        return HubAnswer(endpoint, None, _words(error.reason))
    except HTTPException as error:
        return HubAnswer(endpoint, None, f"what answers there is no HTTP server ({type(error).__name__})")
    except (OSError, ValueError) as error:  # ValueError: no address at all
        return HubAnswer(endpoint, None, _words(error))


def _words(reason: object) -> str:
    """The system's sentence without its error number, which tells a user nothing."""
    return str(getattr(reason, "strerror", None) or reason)


def _opener(environ: Mapping[str, str]) -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone, through the proxies that `environ` names."""
    proxies = {
        scheme: address
        for scheme in ("http", "https")
        if (address := environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY"))
    }
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
