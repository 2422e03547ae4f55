"""Around a running server: exports, figures, and annotators of the proving ground."""

import json
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

from glm_jax.data.collection import store
from glm_jax.data.collection.exports import exporting
from glm_jax.data.collection.figures import statistics as figures
from glm_jax.data.collection.simulation import simulate as simulated
from glm_jax.errors import InputError
from glm_jax.train.collection.accounts import existing
from glm_jax.train.collection.samples import samples as read_samples
from glm_jax.train.collection.told import told
from glm_jax.train.preference.files import bar, check_files, watched


def export(db: str, output: str, *, kind: str = "aggregated") -> None:
    """Writes what was labelled."""
    check_files(db, output)
    under_bar = partial(watched, f"writing {output}")
    with store.reading(existing(db)) as session:
        n = exporting.export(session, kind, output, under_bar)
    print(f"{output}: {n:,} rows")


def statistics(db: str, *, json: bool = False) -> None:
    """Prints agreement, speed and biases."""
    with store.reading(existing(db)) as session:
        found = figures.statistics(session, time.time())
    print(_json(found) if json else told(found))


def _link(line: str, where: str) -> str:
    link = line.split()[-1]
    if not re.fullmatch(r"https?://[^/\s]+/enter/[^/\s]+", link):
        raise InputError(f"{where}: no personal link; expected what `collect invite` prints")
    return link


def _json(values: Any) -> str:
    return json.dumps(values, ensure_ascii=False)


def simulate(samples: str, *, links: str, **given: Any) -> None:
    """Annotators of the proving ground label at a running server."""
    try:
        lines = Path(links).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{links}: cannot be read: {error}") from None
    found = [_link(line, f"{links}:{n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise InputError(f"{links}: no personal links; expected what `collect invite` prints")
    if given.get("pairs", 1) < 1 or given.get("pace", 0.0) < 0:
        raise InputError("--pairs is 1 at least, and --pace 0")
    with bar("labels", None) as done:
        labels = simulated.simulate(read_samples(samples), found, told=done, **given)
    print(f"{len(labels):,} labels of {len(found)} annotators")
