"""Where qrun listens, and for whom."""

import socket

import pytest

from qrun.errors import PortInUse, UsageError
from qrun.listener import check_exposure, listen, url_of


def test_free_port_is_listened_on_at_once():
    """Port 0 is any free one; a client can connect before anything is served."""
    with listen("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        with socket.create_connection((host, port), timeout=5):
            url = url_of(listener)

    assert url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_port_in_use_is_told(host):
    """By somebody else's listener on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortInUse):
        listen(host, taken.getsockname()[1])


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "", "a b"])
def test_host_that_is_not_of_this_machine_is_a_usage_error(host):
    """An address of another machine, or no address."""
    with pytest.raises(UsageError, match="--host"):
        listen(host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.9", "::1"])
def test_loopback_needs_no_key(host):
    """Nobody else can reach it."""
    check_exposure(host, api_key=None, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_wider_address_demands_a_key_or_insecure(host):
    """The refusal names both ways."""
    with pytest.raises(UsageError, match="--insecure") as refused:
        check_exposure(host, api_key=None, insecure=False)
    check_exposure(host, api_key="k", insecure=False)
    check_exposure(host, api_key=None, insecure=True)

    assert "--api-key" in str(refused.value)


def test_wide_listener_is_told_by_an_address_that_works_here():
    """0.0.0.0 is no address to call."""
    with listen("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]

        assert url_of(listener) == f"http://127.0.0.1:{port}"
