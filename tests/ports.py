"""Ports that are promised to one server: between its choice and the server's start nobody else gets it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port(host: str = "127.0.0.1") -> Iterator[int]:
    """Hold a port of one of this machine's addresses, without listening.

    Who asks the system for any free port is not given it; a server that is told its number may bind it, as long as it
    sets SO_REUSEADDR, which all of them do. Until then connections are refused.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((host, 0))
        yield int(holder.getsockname()[1])
