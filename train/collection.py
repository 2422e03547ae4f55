"""What the commands `glm-rlhf collect ...` do: the database, the server and its annotators."""

import getpass
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from glm_jax import configuration
from glm_jax.data import records, rows
from glm_jax.data.collection import exporting, loading, people, store
from glm_jax.data.collection import simulate as simulated
from glm_jax.data.collection import statistics as figures
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.tables import Person, Prompt
from glm_jax.data.collection.web.app import create_app
from glm_jax.data.collection.web.drawing import Draw
from glm_jax.data.records import Pair, Sample
from glm_jax.data.sources import open_pairs
from glm_jax.errors import InputError

ADMINISTRATOR = "administrator"
PASSWORD = "GLM_RLHF_PASSWORD"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    db: str,
    pairs: str | None = None,
    *,
    config: str | None = None,
    practice: str | None = None,
    gold: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    behind_tls: bool = False,
    password_file: str | None = None,
    model: str | None = None,
    prompts: str | None = None,
    **live: Any,
) -> None:
    """Takes pairs into the database and serves them to annotators until it is interrupted."""
    if (model is None) != (prompts is None) or (live and model is None):
        raise InputError("answers are sampled with both --model MODEL and --prompts FILE")
    settings = configuration.load(CollectionConfig, config) if config else CollectionConfig()
    files = {"practice": practice, "gold": gold, "label": pairs}
    found = [(purpose, _rows(path), path) for purpose, path in files.items() if path]
    engine = store.open_store(db)
    with store.writing(engine) as session:  # a wrong row leaves nothing of its file
        _administrator(session, password_file)
        told = [f"{path}: {_loaded(session, *each, settings)}" for *each, path in found]
    for line in told:
        print(line)
    draw = _sampler(engine, model, prompts, live) if model and prompts else None
    app = create_app(engine, settings, draw=draw, secure=behind_tls)
    for line in _where(db, host, port, behind_tls):
        print(line)
    sys.stdout.flush()
    # no log of requests: personal links are secrets
    uvicorn.run(
        app, host=host, port=port, access_log=False, log_level="warning", server_header=False,
        proxy_headers=behind_tls,
    )  # fmt: skip


def _administrator(db: Session, password_file: str | None) -> None:
    """Makes the administrator of a new database."""
    if db.scalar(select(Person.id).where(Person.role == "administrator")) is None:
        password = _password(password_file)
        people.invite(db, ADMINISTRATOR, "administrator", time.time())
        made = db.scalars(select(Person).where(Person.name == ADMINISTRATOR)).one()
        people.set_password(db, made, password)


def _password(file: str | None) -> str:
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read: {error}") from None
    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    if not sys.stdin.isatty():
        raise InputError(
            f"the first start makes an administrator: give a password with --password-file FILE, "
            f"or in the variable {PASSWORD}"
        )
    password = getpass.getpass("Password of the administrator, who is made now: ")
    if getpass.getpass("Once more: ") != password:
        raise InputError("the two passwords differ; start again")
    return password


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


def _rows(path: str) -> Iterable[Pair] | Iterator[Sample]:
    """The pairs or samples of a file, whichever its first row is."""
    for _, raw in rows.rows(path):
        if isinstance(raw, bytes) and b'"log_probs"' in raw:
            return _samples(path)
        break
    return open_pairs(path)


def _samples(path: str) -> Iterator[Sample]:
    """Samples without their tokens, one by one."""
    for number, raw in rows.rows(path):
        try:
            values = rows.parse(raw)
            yield records.parse(values | {"tokens": [], "log_probs": []}, Sample)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None


def _sampler(engine: Engine, model: str, prompts: str, live: dict[str, Any]) -> Draw:
    from glm_jax.sampling import Sampling  # with jax behind it
    from glm_jax.train.live_pairs import sampler

    names = live.keys() & Sampling.__dataclass_fields__.keys()
    sampling = configuration.parse(
        Sampling, {name: live.pop(name) for name in names}, "the command line"
    )
    with store.reading(engine) as db:
        known = {records.prompt_key(messages) for messages in db.scalars(select(Prompt.messages))}
    return sampler(model, prompts, sampling, known=known, **live)


def _where(db: str, host: str, port: int, behind_tls: bool) -> Iterator[str]:
    yield f"http://{host}:{port}/login for the {ADMINISTRATOR!r}; end with Ctrl-C"
    yield f"annotators: glm-rlhf collect invite --db {db} NAME ..."
    if host in LOOPBACK and not behind_tls:
        yield (
            "Only this machine reaches it. For others add --behind-tls and put a proxy that speaks "
            f"TLS in front: caddy reverse-proxy --from YOUR.NAME --to {host}:{port}"
        )
    elif not behind_tls:
        yield (
            f"WARNING: {host} is reached over plain HTTP, where passwords and answers can be read "
            "on the way. Stay at 127.0.0.1, add --behind-tls and put a proxy with TLS in front"
        )


def invite(
    db: str,
    names: Sequence[str],
    *,
    role: str = "annotator",
    url: str = "http://127.0.0.1:8000",
) -> None:
    """Prints a personal link for each name."""
    with store.writing(_existing(db)) as session:
        links = [(name, people.invite(session, name, role, time.time())) for name in names]
    for name, secret in links:
        print(f"{name}\t{url.rstrip('/')}/enter/{secret}")


def export(db: str, output: str, *, kind: str = "aggregated") -> None:
    """Writes what was labelled."""
    with store.reading(_existing(db)) as session:
        n = exporting.export(session, kind, output)
    print(f"{output}: {n:,} rows")


def statistics(db: str, *, json: bool = False) -> None:
    """Prints agreement, speed and biases."""
    with store.reading(_existing(db)) as session:
        found = figures.statistics(session, time.time())
    print(_json(found) if json else figures.told(found))


def _existing(db: str) -> Engine:
    """The database that a server has made; InputError if there is none."""
    if "://" not in db and not Path(db).is_file():
        raise InputError(f"{db}: no such database; `glm-rlhf collect serve` makes it")
    return store.open_store(db)


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


def simulate(samples: str, *, links: str, **given: Any) -> None:
    """Annotators of the proving ground label at a running server."""
    try:
        lines = Path(links).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{links}: cannot be read: {error}") from None
    found = [line.split()[-1] for line in lines if line.strip()]
    if not found:
        raise InputError(f"{links}: no personal links; expected what `collect invite` prints")
    labels = simulated.simulate(_samples(samples), found, **given)
    print(f"{len(labels):,} labels of {len(found)} annotators")
