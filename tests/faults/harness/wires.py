"""A small TCP proxy: it can hold a message, cut its connection, and answer in the place of the server."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

CREATES = ("runs/create", "mlflow/logged-models", "registered-models/create", "model-versions/create")
"""What the paths end with of calls that create something."""
METHODS = (b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ")
QUERY = "query"
"""What a message is called that is not HTTP."""

Listener = Callable[[str, str, str], bytes | None]
"""Told of the wire, the message and "before" or "after": it goes to the server now, its answer to the client.
What it returns goes to the client instead, and the connection ends; nothing at all of b"". None lets it pass.
"""


class Wire:
    """Listens on a port of the loopback, and connects whoever comes to a server's."""

    def __init__(self, name: str, server: int) -> None:
        self.name = name
        self.server = server
        self.listener: Listener | None = None
        self.refuses = False
        """Whether whoever comes is sent away."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._door = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._door.getsockname()[1]
        threading.Thread(target=self._welcome, daemon=True).start()

    def cut(self) -> None:
        """End all connections at once, with a reset."""
        with self._lock:
            open_now = list(self._open)
        for each in open_now:
            with suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            _end(each)

    def close(self) -> None:
        """Let nobody in any more."""
        self._door.close()
        self.cut()

    def _welcome(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            try:
                if self.refuses:
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self.server))
            except OSError:
                client.close()
                continue
            _Line(self, client, server)

    def heard(self, message: str, when: str) -> bytes | None:
        """What the listener wants."""
        return self.listener(self.name, message, when) if self.listener else None

    def hold(self, *ends: socket.socket) -> None:
        """Connections that are cut with the others."""
        with self._lock:
            self._open.update(ends)

    def forget(self, *ends: socket.socket) -> None:
        """They are closed."""
        with self._lock:
            self._open.difference_update(ends)


class _Line:
    """One connection: a thread for each direction."""

    def __init__(self, wire: Wire, client: socket.socket, server: socket.socket) -> None:
        self._wire = wire
        self._client = client
        self._server = server
        self._asked: str | None = None
        self._threads = 2
        self._lock = threading.Lock()
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.hold(client, server)
        for way in (self._up, self._down):
            threading.Thread(target=self._carry, args=(way,), daemon=True).start()

    def _carry(self, way: Callable[[], None]) -> None:
        with suppress(OSError):
            way()
        ends = (self._client, self._server)
        for each in ends:
            _end(each)
        with self._lock:
            self._threads -= 1
            last = not self._threads
        if last:
            self._wire.forget(*ends)
            for each in ends:
                each.close()

    def _up(self) -> None:
        while content := self._client.recv(1 << 16):
            message = _message(content, self._wire.name)
            if message is not None:
                if self._is_answered(message, "before"):
                    return
                self._asked = message
            self._server.sendall(content)

    def _down(self) -> None:
        while content := self._server.recv(1 << 16):
            asked, self._asked = self._asked, None
            if asked is not None and self._is_answered(asked, "after"):
                return
            self._client.sendall(content)

    def _is_answered(self, message: str, when: str) -> bool:
        answer = self._wire.heard(message, when)
        if answer:
            self._client.sendall(answer)
        return answer is not None


def _message(content: bytes, wire: str) -> str | None:
    """What it is called; None for what only goes on with an earlier one."""
    if wire == "store":
        return QUERY
    if not content.startswith(METHODS):
        return None
    method, path, *_ = content.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    return f"{method} {path.partition('?')[0].removeprefix('/api/').removeprefix('2.0/')}"


def creates(message: str) -> bool:
    """Whether it asks for something new."""
    return message.startswith("POST ") and message.endswith(CREATES)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
