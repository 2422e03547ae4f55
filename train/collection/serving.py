"""The server of a collection: its administrator, what it takes in, and where it answers."""

import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import uvicorn
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from glm_jax import configuration
from glm_jax.data import records
from glm_jax.data.collection import loading, store
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.tables import Prompt
from glm_jax.data.collection.web.app import create_app
from glm_jax.data.collection.web.live import Draw
from glm_jax.data.records import Pair, Sample
from glm_jax.errors import InputError
from glm_jax.train.collection.accounts import ADMINISTRATOR, address, first_administrator
from glm_jax.train.collection.samples import pairs_or_samples

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NAME = "YOUR.NAME"
EVERYWHERE = {  # all addresses of a machine: nobody has the one beyond (RFC 5737, 3849); its own
    "0.0.0.0": (socket.AF_INET, "192.0.2.1", "127.0.0.1"),
    "::": (socket.AF_INET6, "2001:db8::1", "::1"),
}


def serve(
    db: str,
    pairs: str | None = None,
    *,
    config: str | None = None,
    practice: str | None = None,
    gold: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    url: str | None = None,
    behind_tls: bool = False,
    password_file: str | None = None,
    model: str | None = None,
    prompts: str | None = None,
    **live: Any,
) -> None:
    """Takes pairs into the database and serves them to annotators until it is interrupted."""
    if (model is None) != (prompts is None) or (live and model is None):
        raise InputError("answers are sampled with both --model MODEL and --prompts FILE")
    if not 0 < port < 2**16:
        raise InputError(f"--port {port}: expected 1 to 65535")
    there = address(url) if url else None
    settings = configuration.load(CollectionConfig, config) if config else CollectionConfig()
    files = {"practice": practice, "gold": gold, "label": pairs}
    found = [(purpose, pairs_or_samples(path), path) for purpose, path in files.items() if path]
    engine = store.open_store(db)
    with store.writing(engine) as session:  # a wrong row leaves nothing of its file
        first_administrator(session, password_file)
        told = [f"{path}: {_loaded(session, *each, settings)}" for *each, path in found]
    for line in told:
        print(line)
    draw = _sampler(engine, model, prompts, live) if model and prompts else None
    app = create_app(engine, settings, draw=draw, url=there, secure=behind_tls)
    for line in _where(db, host, port, there, behind_tls):
        print(line)
    sys.stdout.flush()
    # no log of requests: personal links are secrets
    uvicorn.run(
        app, host=host, port=port, access_log=False, log_level="warning", server_header=False,
        proxy_headers=behind_tls,
    )  # fmt: skip


def _loaded(
    db: Session, purpose: str, found: Iterable[Pair | Sample], settings: CollectionConfig
) -> str:
    """Takes pairs in; what was new among them."""
    if purpose == "label":
        loaded = loading.load_pairs(db, found, settings, time.time())
    else:
        loaded = loading.load_gold(db, found, settings, time.time(), purpose=purpose)
    said = f"{loaded.pairs:,} new pairs of {loaded.prompts:,} new prompts"
    if loaded.known:
        said += f", {loaded.known:,} known already"
    return said + (f"; {loaded.same:,} left out, of equal texts" if loaded.same else "")


def _sampler(engine: Engine, model: str, prompts: str, live: dict[str, Any]) -> Draw:
    from glm_jax.sampling import Sampling  # with jax behind it
    from glm_jax.train.collection.live_pairs import sampler

    names = live.keys() & Sampling.__dataclass_fields__.keys()
    sampling = configuration.parse(
        Sampling, {name: live.pop(name) for name in names}, "the command line"
    )
    with store.reading(engine) as db:
        known = {records.prompt_key(messages) for messages in db.scalars(select(Prompt.messages))}
    return sampler(model, prompts, sampling, known=known, **live)


def _where(db: str, host: str, port: int, url: str | None, behind_tls: bool) -> Iterator[str]:
    listening = _joined(host, port)
    speaks, to = ("https", NAME) if behind_tls else ("http", _joined(_open_to(host), port))
    there = url or f"{speaks}://{to}"
    yield f"{there}/login for the {ADMINISTRATOR!r}; end with Ctrl-C"
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
