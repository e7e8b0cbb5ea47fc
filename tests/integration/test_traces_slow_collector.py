"""A collector that never answers does not hold a process that wants to end."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

MOST_SECONDS = 8.0
"""Five of waiting (docs/run/tracing.md), and a slow end of the interpreter."""
BATCHES = 4
PROCESS = """
import sys
from ctdeface_shared.tracing.start import open_tracer
with open_tracer(sys.argv[1], "ctdeface-test") as tracer:
    for _ in range(int(sys.argv[2])):
        tracer.begin("job", 1.0).end(2.0)
    print("told", flush=True)
print("over", flush=True)
"""


def hang(connection: socket.socket, stop: threading.Event) -> None:
    """Keep the connection and say nothing."""
    stop.wait()
    connection.close()


def drip(connection: socket.socket, stop: threading.Event) -> None:
    """Answer one byte at a time, each in time for a reader that waits for the next."""
    with connection, suppress(OSError):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not stop.wait(0.5):
            connection.sendall(b"x")


@contextmanager
def collector(
    answer: Callable[[socket.socket, threading.Event], None],
) -> Iterator[tuple[str, threading.Event]]:
    """Return the address of a local collector and the event of its first spans."""
    stop, came = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):  # the server is closed
                while True:
                    connection, _ = server.accept()
                    came.set()
                    threading.Thread(target=answer, args=(connection, stop), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/traces", came
        finally:
            stop.set()
            server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("answer", [hang, drip])
def test_a_process_ends_within_seconds_though_the_collector_does_not_answer(
    answer: Callable[[socket.socket, threading.Event], None],
) -> None:
    """Several batches are waiting; the process ends anyway and logs the lost spans."""
    with collector(answer) as (endpoint, came):
        command = [sys.executable, "-c", PROCESS, endpoint, str(BATCHES * 512)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            assert next(line for line in process.stdout if line == "told\n")
            begun = time.monotonic()
            said, _ = process.communicate(timeout=60)
            seconds = time.monotonic() - begun
        assert came.is_set()
    assert process.returncode == 0
    assert (
        "over" in said
    )  # not as a line of its own: the thread that sends spans writes to the same stream
    assert "traces_given_up" in said
    assert seconds < MOST_SECONDS
