"""Opening a session with the Hub: whose token goes along, how qrun names itself, and a library that keeps quiet.

Loads huggingface_hub and httpx2: import it when the first request is made.
"""

import logging
import platform
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, get_token
from huggingface_hub.errors import OIDCError
from huggingface_hub.utils import logging as hub_logging

from qrun import __version__
from qrun.hub_errors import HubUnreachable, TokenRefused
from qrun.hub_settings import HubSettings
from qrun.hub_transport import HubTransport

__all__ = ["open_session"]


def open_session(settings: HubSettings) -> HubTransport:
    """A session that sends the user's token to the Hub, where there is one. Raises HubUnreachable."""
    _hush()
    headers = {"user-agent": user_agent()}
    if token := _token(settings):
        if not (token.isascii() and token.isprintable()):  # h11 would refuse it, and quote it
            raise TokenRefused("", f"{settings.shown_endpoint}/settings/tokens", logged_in=True)
        headers["authorization"] = f"Bearer {token}"
    return HubTransport(settings.shown_endpoint, retry_s=settings.retry_s, headers=headers)


def user_agent() -> str:
    """Who asks, in the manner of huggingface_hub's own, without what that finds out by asking the Hub."""
    return f"qrun/{__version__}; hf_hub/{huggingface_hub.__version__}; python/{platform.python_version()}"


def _token(settings: HubSettings) -> str | None:
    """The token of the environment, else the one of `hf auth login`, by huggingface_hub's rules.

    Its `get_token` renews a token that is about to run out; it knows the folder that the environment names.
    """
    if settings.token or not settings.implicit_token:
        return settings.token
    try:
        if Path(constants.HF_TOKEN_PATH) == settings.token_path:
            return get_token()
        return "".join(settings.token_path.read_text(encoding="utf-8").split()) or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, OIDCError) as error:
        why = f"your token cannot be read ({type(error).__name__})"
        remedy = f"Log in again (hf auth login), or remove {settings.token_path}."
        raise HubUnreachable(settings.shown_endpoint, why, remedy) from error


def _hush() -> None:
    """No warnings of the library on the user's stderr, unless the user asked for them (HF_HUB_VERBOSITY, HF_DEBUG)."""
    if hub_logging.get_verbosity() == logging.WARNING:  # its default
        hub_logging.set_verbosity(logging.CRITICAL)
