"""Around a running server: invitations, exports, figures, and annotators of the proving ground."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from glm_jax.data.collection import exporting, people, store
from glm_jax.data.collection import simulate as simulated
from glm_jax.data.collection import statistics as figures
from glm_jax.errors import InputError
from glm_jax.train.collection.samples import samples as read_samples
from glm_jax.train.collection.told import told


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
    print(_json(found) if json else told(found))


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
    labels = simulated.simulate(read_samples(samples), found, **given)
    print(f"{len(labels):,} labels of {len(found)} annotators")
