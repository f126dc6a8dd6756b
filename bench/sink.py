"""A receiver that does as little as possible, so that arrival times are the sender's doing: one thread, epoll, the clock
read as soon as bytes are there, answers without looking at the request beyond its length."""

import multiprocessing
import re
import selectors
import socket
import threading
import time

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


def _serve(listener: socket.socket, stop) -> None:
    """Serves until `stop` (a pipe) is readable, then sends [(arrived_at_us, body)] through it."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(stop, selectors.EVENT_READ)
    waiting: dict[socket.socket, tuple[int, bytes]] = {}  # arrival of the first byte, bytes so far
    received: list[tuple[int, bytes]] = []
    while True:
        for ready, _ in selector.select():
            connection = ready.fileobj
            if connection is stop:
                stop.send(received)
                return
            if connection is listener:
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(accepted, selectors.EVENT_READ)
                waiting[accepted] = (0, b"")
                continue
            now_us = time.time_ns() // 1000
            chunk = connection.recv(1 << 20)
            if not chunk:
                selector.unregister(connection)
                waiting.pop(connection)
                connection.close()
                continue
            since, before = waiting[connection]
            since, request = since or now_us, before + chunk
            head, found, body = request.partition(b"\r\n\r\n")
            length = LENGTH.search(head + b"\r\n")
            if found and len(body) >= (int(length[1]) if length else 0):
                received.append((since, body))
                connection.sendall(ANSWER)
                since, request = 0, b""
            waiting[connection] = (since, request)


def _probe(port: int, every: float, seconds: float) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            body = b'{"probe_us":%d}' % (time.time_ns() // 1000)
            connection.sendall(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            connection.recv(1024)
            time.sleep(every)


def probe(port: int, every: float, seconds: float) -> multiprocessing.Process:
    """Starts a process that posts its own clock straight to a sink: what the machine itself takes at that time."""
    process = multiprocessing.Process(target=_probe, args=(port, every, seconds), daemon=True)
    process.start()
    return process


def silence() -> int:
    """The port of a receiver that accepts connections and never says a word."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    held = []

    def accept() -> None:
        while True:
            held.append(listener.accept())

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


class Sink:
    """The receiver in a process of its own."""

    def __init__(self):
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = listener.getsockname()[1]
        self._pipe, far_end = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_serve, args=(listener, far_end), daemon=True)
        self._process.start()
        listener.close()

    def stop(self) -> list[tuple[int, bytes]]:
        """Ends the process and returns every (arrived_at_us, body)."""
        self._pipe.send(None)
        received = self._pipe.recv()
        self._process.join()
        return received
