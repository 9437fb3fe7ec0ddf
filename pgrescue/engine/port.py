"""Ports on this machine."""

from __future__ import annotations

import socket


def free_port(port: int = 0) -> int | None:
    """Return `port`, or any port for 0, where 127.0.0.1 can be listened on there now, else None."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return None
        return int(probe.getsockname()[1])
