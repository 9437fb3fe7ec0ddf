"""A way to a server over TCP that can be cut, or fall silent in two ways, after any number of bytes."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from fixtures.server import PORT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # linux/filter.h: BPF_RET | BPF_K with 0, drop the packet


class Accident(StrEnum):
    """What happens to all connections, and to those that come later."""

    CUT = "cut"
    """They are closed, and new ones refused."""
    HANG = "hang"
    """Nothing is forwarded any more; the proxy's system goes on acknowledging: a tunnel that hangs."""
    VANISH = "vanish"
    """Every packet to the proxy is dropped: a cable that was pulled."""


@dataclass(eq=False)
class _Link:
    """A client, and its connection to the server; nothing is forwarded of one that is stuck."""

    client: socket.socket
    server: socket.socket
    is_stuck: bool = False

    def forward(self, one: socket.socket, other: socket.socket, count: Callable[[int], None]) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                count(len(data))
                if self.is_stuck:
                    return  # both stay open
                other.sendall(data)
        if not self.is_stuck:
            self.close()

    def close(self) -> None:
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Proxy:
    """Listens on this machine and forwards to a server's Unix socket, inside a `with` block.

    `sent_bytes` is how much clients have sent through it so far, `connections` how often they came.
    """

    def __init__(self, socket_dir: Path, address: str = "127.0.0.1") -> None:
        self.sent_bytes = 0
        self.connections = 0
        self._address = address
        self._target = f"{socket_dir}/.s.PGSQL.{PORT}"
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._accident: Accident | None = None
        self._planned: tuple[Accident, int] | None = None
        self._happened = threading.Event()

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        self._listener = socket.create_server((self._address, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.happen(Accident.CUT)

    def plan(self, accident: Accident, *, after_bytes: int) -> None:
        """Have an accident once clients have sent so many more bytes."""
        with self._lock:
            self._planned = (accident, self.sent_bytes + after_bytes)

    def happen(self, accident: Accident) -> None:
        """Have the accident now."""
        with self._lock:
            self._accident, links = accident, list(self._links)
        for link in links:
            self._meet(link, accident)
        self._happened.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the accident; tell whether it has happened."""
        return self._happened.wait(timeout_s)

    def mend(self) -> None:
        """Forward what comes from now on; what hung or vanished stays as it is."""
        with self._lock:
            self._accident = self._planned = None
            self._happened.clear()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            link = _Link(client, server)
            with self._lock:
                accident = self._accident
                self._links.append(link)
                self.connections += 1
            if accident is not None:
                self._meet(link, accident)
            if accident is not Accident.CUT:
                server.connect(self._target)
                for ends, count in (((client, server), self._count), ((server, client), lambda _: None)):
                    threading.Thread(target=link.forward, args=(*ends, count), daemon=True).start()

    @staticmethod
    def _meet(link: _Link, accident: Accident) -> None:
        match accident:
            case Accident.CUT:
                link.close()
            case Accident.HANG:
                link.is_stuck = True
            case Accident.VANISH:
                link.is_stuck = True
                with contextlib.suppress(OSError):
                    _go_deaf(link.client)

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self.sent_bytes += size_bytes
            planned = self._planned
            if planned is None or self.sent_bytes < planned[1]:
                return
            self._planned = None
        self.happen(planned[0])


def _go_deaf(connected: socket.socket) -> None:
    """Have the system drop every packet for this socket before anybody sees it, acknowledgements included."""
    program = ctypes.create_string_buffer(_RETURN_NOTHING)
    # struct sock_fprog: the number of instructions, and where they are.
    connected.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))
