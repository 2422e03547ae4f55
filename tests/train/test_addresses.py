"""What `collect serve` says of where it is reached, and that it can be had."""

import socket
from urllib.parse import urlsplit

import pytest

from benchmarks.collection.server import free_port
from glm_jax.errors import InputError
from glm_jax.train.collection.addresses import bound, where


@pytest.mark.parametrize(
    ("host", "port", "url", "behind_tls", "there"),
    [
        ("::1", 8000, None, False, "http://[::1]:8000"),
        ("127.0.0.1", 99, None, False, "http://127.0.0.1:99"),
        ("127.0.0.1", 99, "https://a.example", False, "https://a.example"),
        # its cookies travel over TLS only
        ("127.0.0.1", 99, None, True, "https://YOUR.NAME"),
    ],
)
def test_where_the_server_is_reached(host, port, url, behind_tls, there):
    told = "\n".join(where("new.db", host, port, url, behind_tls))
    assert f"{there}/login " in told and f"--url {there} NAME" in told
    assert ("--to [::1]:8000" in told) == (host == "::1")


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
@pytest.mark.parametrize("online", [True, False])
def test_of_all_addresses_one_is_named_that_can_be_opened(monkeypatch, host, online):
    """Another socket can listen there and be reached; "all addresses" is nothing for a link."""

    def unreachable(*_):
        raise OSError("unreachable")

    with monkeypatch.context() as patch:
        if not online:
            patch.setattr(socket.socket, "connect", unreachable)
        told = "\n".join(where("new.db", host, 8000, None, False))
    named = urlsplit(told.split()[0])
    assert named.hostname != host and named.port == 8000
    assert f"--url http://{named.netloc} NAME" in told and f"WARNING: {host} " in told
    if ":" not in host:  # not every machine has IPv6
        with socket.create_server((named.hostname, 0)) as listening:
            socket.create_connection(listening.getsockname(), timeout=5).close()


def test_a_port_that_is_taken():
    with bound("127.0.0.1", free_port()) as first:
        first.listen()
        taken = first.getsockname()[1]
        with (
            pytest.raises(InputError, match=rf"cannot listen at 127\.0\.0\.1:{taken} .*--port"),
            bound("127.0.0.1", taken),
        ):
            pass
