"""What each annotator did on each day, as a table for a spreadsheet."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from glm_jax.data.collection.figures import judged
from glm_jax.data.collection.figures.judged import VERDICTS
from glm_jax.data.collection.figures.statistics import HOUR, day

COLUMNS = (
    "day", "annotator", "judged", "labels", "ties", "cannot_judge", "unwilling", "repeats",
    "gold", "gold_right", "median_seconds", "hours",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def daily(db: Session) -> Iterator[dict[str, Any]]:
    """By day (UTC) and annotator.

    `judged` is everything that counts, `labels` what is exported as such; `ties`, `cannot_judge`
    and `unwilling` are of the pairs to be labelled; `hours` is the visible, active time.
    """
    found = judged.read(db)
    days = [day(created).isoformat() for created in found.created_N.tolist()]
    whose = list(zip(days, found.person_N.tolist(), strict=True))
    rows: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(whose):
        rows.setdefault(key, []).append(row)
    for (at, person), numbers in sorted(rows.items()):
        mine = found.take(np.array(numbers))
        gold, said = mine.gold().votes(), mine.labels().verdict_N
        seconds_N = mine.seconds_N[~np.isnan(mine.seconds_N)]
        second, ties, first, unable, unwilling = np.bincount(said, minlength=len(VERDICTS)).tolist()
        told = (
            at,
            mine.names[person],
            len(mine),
            first + second + ties,
            ties,
            unable,
            unwilling,
            int(mine.repeat_N.sum()),
            len(gold),
            int((gold.verdict_N == gold.right_N).sum()),
            round(float(np.median(seconds_N)), 1) if len(seconds_N) else None,
            round(float(seconds_N.sum()) / HOUR, 3),
        )
        yield dict(zip(COLUMNS, told, strict=True))


def as_csv(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Lines of CSV below a head. A name that a spreadsheet would take for a formula is quoted."""
    yield _line(COLUMNS)
    for row in rows:
        name = row["annotator"]
        safe = f"'{name}" if name.startswith(_FORMULA) else name
        yield _line([*(row | {"annotator": safe}).values()])


def _line(values: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode()
