"""Sockets that listen: which addresses reach them."""

import contextlib
import socket

import pytest

from noisegate.service.binding import BindError, bind


def _reached(addresses: list[str], port: int) -> list[str]:
    reached = []
    for address in addresses:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=10):
            reached.append(address)
    return reached


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        pytest.param("0.0.0.0", ["127.0.0.1"], id="ipv4"),
        pytest.param("::", ["127.0.0.1", "::1"], id="both"),
        pytest.param("::1", ["::1"], id="ipv6"),
    ],
)
def test_which_families_an_address_stands_for(address: str, reached: list[str]) -> None:
    """`::` is IPv6 and IPv4, whatever the machine's bindv6only says; 0.0.0.0 is IPv4 alone."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with contextlib.ExitStack() as ends:
        for one in bind(address, 0):
            ends.enter_context(one).listen()
            port = one.getsockname()[1]
        assert _reached(["127.0.0.1", "::1"], port) == reached


def test_a_port_that_is_taken_is_named() -> None:
    """A start ends with the address, the port and the kernel's reason."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            bind("127.0.0.1", port)
