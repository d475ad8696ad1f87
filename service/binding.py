"""Listening sockets, bound before anything else is begun: a port that is taken stops a start at once."""

import socket


class BindError(OSError):
    """An address that cannot be listened on: which, and why."""


def bind(address: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Bind sockets to all addresses of a name; they do not listen yet.

    Args:
        address: IP address or host name.
        port: 0: any free one.
        shared: Other processes bind the same port (SO_REUSEPORT) and the kernel spreads connections over them.

    Raises:
        BindError: The name is not known, or the port is taken or not allowed.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, number, _name, where in dict.fromkeys(found):
            listener = socket.socket(family, kind, number)
            sockets.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
            first = sockets[0].getsockname()[1] if len(sockets) > 1 else port
            listener.bind((where[0], first, *where[2:]))
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise BindError(error.errno, f"cannot listen on {address} port {port}: {error.strerror}") from error
    return sockets
