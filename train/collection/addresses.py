"""Where a server listens, and by which address it is reached."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from glm_jax.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAME = "YOUR.NAME"
EVERYWHERE = {  # all addresses of a machine: nobody has the one beyond (RFC 5737, 3849); its own
    "0.0.0.0": (socket.AF_INET, "192.0.2.1", "127.0.0.1"),
    "::": (socket.AF_INET6, "2001:db8::1", "::1"),
}


def address(url: str) -> str:
    """Where a server is reached, without a slash at the end; InputError for what is no address."""
    if not re.fullmatch(r"https?://[^/?#\s]+/?", url):
        raise InputError(
            f"--url {url}: expected one like http://127.0.0.1:8000, and nothing after it"
        )
    return url.rstrip("/")


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at an address, where nobody listens yet; InputError if it cannot be had."""
    if not 0 < port < 2**16:
        raise InputError(f"--port {port}: expected 1 to 65535")
    with ExitStack() as opened:
        try:
            family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            found = opened.enter_context(socket.socket(family))
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(place)
        except OSError as error:
            raise InputError(
                f"cannot listen at {_joined(host, port)} ({error.strerror or error}); --host and "
                "--port choose another address"
            ) from None
        yield found


def where(db: str, host: str, port: int, url: str | None, behind_tls: bool) -> Iterator[str]:
    """What to open, what to send to annotators, and who can reach it."""
    listening = _joined(host, port)
    speaks, to = ("https", NAME) if behind_tls else ("http", _joined(_open_to(host), port))
    there = url or f"{speaks}://{to}"
    yield f"{there}/login for the 'administrator'; end with Ctrl-C"
    if host in EVERYWHERE and not url and not behind_tls:
        yield "That is one of this machine's addresses; for another, or for a name, add --url"
    shown = "DB" if "://" in db else db  # an address may hold a password
    yield f"annotators: glm-rlhf collect invite --db {shown} --url {there} NAME ..."
    if host in LOOPBACK and not behind_tls:
        yield (
            "Only this machine reaches it. For others add --behind-tls and put a proxy that speaks "
            f"TLS in front: caddy reverse-proxy --from {NAME} --to {listening}"
        )
    elif not behind_tls:
        yield (
            f"WARNING: {host} is reached over plain HTTP, where passwords and answers can be read "
            "on the way. Stay at 127.0.0.1, add --behind-tls and put a proxy with TLS in front"
        )


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _open_to(host: str) -> str:
    """What a browser can open: of all addresses of this machine the one by which it leaves it."""
    if host not in EVERYWHERE:
        return host
    family, beyond, own = EVERYWHERE[host]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as leaving:
            leaving.connect((beyond, 9))  # of a datagram this sends nothing
            return leaving.getsockname()[0]
    except OSError:  # it is in no network
        return own
