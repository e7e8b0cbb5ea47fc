"""Whether a port of the metrics can be used."""

import socket

from ctdeface_shared.metrics.ports import is_free


def test_a_port_with_a_server_is_taken_and_a_wrong_host_is_not() -> None:
    """Only a port in use counts; the server itself reports any other error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free("127.0.0.1", port)
    assert is_free("127.0.0.1", port)
    assert is_free("192.0.2.1", port)
