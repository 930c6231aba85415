"""The network is out of reach in tests, this machine is not."""

import socket

import pytest


def test_a_connection_beyond_this_machine_raises():
    with pytest.raises(RuntimeError, match=r"without a network, and something asked for example\.org"):
        socket.create_connection(("example.org", 80))
    with socket.socket() as plain, pytest.raises(RuntimeError, match=r"asked for 192\.0\.2\.1"):
        plain.connect(("192.0.2.1", 80))


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
