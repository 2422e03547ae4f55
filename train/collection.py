"""What the commands `glm-rlhf collect ...` do: the database, the server and its annotators."""

import getpass
import importlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_jax import configuration
from glm_jax.data import records, rows
from glm_jax.data.records import Pair, Sample
from glm_jax.data.sources import open_pairs
from glm_jax.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from glm_jax.data.collection.loading import Loaded
    from glm_jax.data.collection.settings import CollectionConfig

ADMINISTRATOR = "administrator"
PASSWORD = "GLM_RLHF_PASSWORD"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def installed() -> None:
    """Raises InputError if the extra `collect` is missing."""
    for name in ("argon2", "fastapi", "httpx", "limits", "nh3", "sqlalchemy", "uvicorn"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            raise InputError(f"{name} is not installed: pip install 'glm-rlhf[collect]'") from None


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
    import uvicorn

    from glm_jax.data.collection import store
    from glm_jax.data.collection.settings import CollectionConfig
    from glm_jax.data.collection.web.app import create_app

    if (model is None) != (prompts is None) or (live and model is None):
        raise InputError("answers are sampled with both --model MODEL and --prompts FILE")
    settings = configuration.load(CollectionConfig, config) if config else CollectionConfig()
    engine = store.open_store(db)
    _administrator(engine, password_file)
    _load(engine, settings, pairs, {"practice": practice, "gold": gold})
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


def _administrator(engine: "Engine", password_file: str | None) -> None:
    """Makes the administrator of a new database."""
    from sqlalchemy import select

    from glm_jax.data.collection import people, store
    from glm_jax.data.collection.tables import Person

    with store.reading(engine) as db:
        known = db.scalar(select(Person.id).where(Person.role == "administrator"))
    if known is None:
        password = _password(password_file)
        with store.writing(engine) as db:
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


def _load(
    engine: "Engine",
    settings: "CollectionConfig",
    pairs: str | None,
    known: dict[str, str | None],
) -> None:
    from glm_jax.data.collection import loading, store

    # all in one transaction: a wrong row leaves nothing of its file
    with store.writing(engine) as db:
        for purpose, path in known.items():
            if path:
                answered = open_pairs(path)
                told = loading.load_gold(db, answered, settings, time.time(), purpose=purpose)
                print(f"{path}: {_counted(told)}")
        if pairs:
            told = loading.load_pairs(db, _rows(pairs), settings, time.time())
            print(f"{pairs}: {_counted(told)}")


def _counted(loaded: "Loaded") -> str:
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


def _sampler(engine: "Engine", model: str, prompts: str, live: dict[str, Any]) -> Any:
    from sqlalchemy import select

    from glm_jax.data.collection import store
    from glm_jax.data.collection.tables import Prompt
    from glm_jax.sampling import Sampling
    from glm_jax.train.live_pairs import sampler

    names = Sampling.__dataclass_fields__
    values = {name: live.pop(name) for name in list(live) if name in names}
    sampling = configuration.parse(Sampling, values, "the command line")
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
    from glm_jax.data.collection import people, store

    with store.writing(_existing(db)) as session:
        links = [(name, people.invite(session, name, role, time.time())) for name in names]
    for name, secret in links:
        print(f"{name}\t{url.rstrip('/')}/enter/{secret}")


def export(db: str, output: str, *, kind: str = "aggregated") -> None:
    """Writes what was labelled."""
    from glm_jax.data.collection import exporting, store

    with store.reading(_existing(db)) as session:
        n = exporting.export(session, kind, output)
    print(f"{output}: {n:,} rows")


def statistics(db: str, *, json: bool = False) -> None:
    """Prints agreement, speed and biases."""
    from glm_jax.data.collection import statistics, store

    with store.reading(_existing(db)) as session:
        found = statistics.statistics(session, time.time())
    print(_json(found) if json else statistics.told(found))


def _existing(db: str) -> "Engine":
    """The database that a server has made; InputError if there is none."""
    from glm_jax.data.collection import store

    if "://" not in db and not Path(db).is_file():
        raise InputError(f"{db}: no such database; `glm-rlhf collect serve` makes it")
    return store.open_store(db)


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


def simulate(samples: str, *, links: str, **given: Any) -> None:
    """Annotators of the proving ground label at a running server."""
    from glm_jax.data.collection import simulate

    try:
        lines = Path(links).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{links}: cannot be read: {error}") from None
    found = [line.split()[-1] for line in lines if line.strip()]
    if not found:
        raise InputError(f"{links}: no personal links; expected what `collect invite` prints")
    labels = simulate.simulate(_samples(samples), found, **given)
    print(f"{len(labels):,} labels of {len(found)} annotators")
