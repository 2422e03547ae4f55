"""The server of a collection: its administrator, what it takes in, and where it answers."""

from collections.abc import Iterable
from contextlib import suppress
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
from glm_jax.data.collection.web.live import Sampler
from glm_jax.data.records import Pair, Sample
from glm_jax.errors import InputError
from glm_jax.train.collection.accounts import first_administrator
from glm_jax.train.collection.addresses import address, bound, where
from glm_jax.train.collection.samples import pairs_or_samples
from glm_jax.train.preference.files import watched

PATIENCE = 5  # seconds after Ctrl-C that a download may still take


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
    there = address(url) if url else None
    settings = configuration.load(CollectionConfig, config) if config else CollectionConfig()
    files = {"practice": practice, "gold": gold, "label": pairs}
    found = [(purpose, pairs_or_samples(path), path) for purpose, path in files.items() if path]
    with bound(host, port) as place:
        engine = store.open_store(db)
        with store.writing(engine) as session:  # a wrong row leaves nothing of its file
            first_administrator(session, password_file)
            told = [f"{path}: {_loaded(session, *each, path, settings)}" for *each, path in found]
        sampler = _sampler(engine, model, prompts, live) if model and prompts else None
        app = create_app(engine, settings, sampler=sampler, url=there, secure=behind_tls)
        for line in (*told, *where(db, host, port, there, behind_tls)):
            print(line, flush=True)
        # no log of requests: personal links are secrets
        served = uvicorn.Config(
            app, access_log=False, log_level="warning", server_header=False,
            proxy_headers=behind_tls, timeout_graceful_shutdown=PATIENCE,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):
            uvicorn.Server(served).run(sockets=[place])


def _loaded(
    db: Session,
    purpose: str,
    found: Iterable[Pair | Sample],
    path: str,
    settings: CollectionConfig,
) -> str:
    """Takes pairs in; what was new among them."""
    found = watched(f"reading {path}", found)
    try:
        if purpose == "label":
            loaded = loading.load_pairs(db, found, settings)
        else:
            loaded = loading.load_gold(db, found, settings, purpose=purpose)
    except InputError as error:  # of a row that does not go with the others
        raise InputError(str(error) if path in str(error) else f"{path}: {error}") from None
    said = f"{loaded.pairs:,} new pairs of {loaded.prompts:,} new prompts"
    if loaded.known:
        said += f", {loaded.known:,} known already"
    return said + (f"; {loaded.same:,} left out, of equal texts" if loaded.same else "")


def _sampler(engine: Engine, model: str, prompts: str, live: dict[str, Any]) -> Sampler:
    from glm_jax.sampling import Sampling  # with jax behind it
    from glm_jax.train.collection.live_pairs import sampler

    names = live.keys() & Sampling.__dataclass_fields__.keys()
    sampling = configuration.parse(
        Sampling, {name: live.pop(name) for name in names}, "the command line"
    )
    with store.reading(engine) as db:
        known = {records.prompt_key(messages) for messages in db.scalars(select(Prompt.messages))}
    return sampler(model, prompts, sampling, known=known, **live)
