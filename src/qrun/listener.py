"""The address that qrun listens on: bound before anything slow begins, and never wider than was asked for."""

import errno
import os
import socket

from qrun.errors import Failure, PortInUse, UsageError

__all__ = ["check_exposure", "listen", "url_of"]

_BACKLOG = 128


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. `port` 0: any free one. Raises PortInUse, UsageError or Failure."""
    family, _, _, _, address = _addresses(host, port)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let a second server have the same port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(error, host, port) from error
    listener.settimeout(0)  # not blocking, as an event loop wants it
    return listener


def check_exposure(host: str, *, api_key: str | None, insecure: bool) -> None:
    """Raise UsageError for an address that others can reach, without a key and without `--insecure`."""
    if api_key or insecure or all(_is_loopback(address) for *_, address in _addresses(host, 0)):
        return
    raise UsageError(
        f"--host {host} lets other machines in. Give --api-key KEY (or set QRUN_API_KEY), or --insecure to let anyone."
    )


def url_of(listener: socket.socket) -> str:
    """The base address for programs on this machine."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound to
        host = "127.0.0.1" if listener.family == socket.AF_INET else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host!r} is no host name or address: {_words(error)}.") from error
    # IPv4 first: what `localhost` means to most clients.
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return [(int(family), int(kind), proto, name, (str(a[0]), int(a[1]))) for family, kind, proto, name, a in ordered]


def _is_loopback(address: tuple[str, int]) -> bool:
    import ipaddress

    return ipaddress.ip_address(address[0].partition("%")[0]).is_loopback


def _refusal(error: OSError, host: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(host, port)
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host} is no address of this machine.")
    if error.errno == errno.EACCES:
        return Failure(f"this user may not listen on port {port}.", "Choose one above 1023 with --port.")
    return Failure(f"cannot listen on {host}:{port}: {_words(error)}.")


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
