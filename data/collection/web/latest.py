"""The figures of the administrator's page, which are not worked out for every look at it."""

import time
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Engine, func, select

from glm_jax.data.collection.figures.statistics import statistics
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import reading
from glm_jax.data.collection.tables import Retraction
from glm_jax.data.collection.web.figures import figures
from glm_jax.data.plots import Panel

REST = 30  # seconds, at least, that figures are shown before they are worked out again
TIMES = 20  # as long as it took, too: annotators need the processor


class Figures(NamedTuple):
    numbers: dict[str, Any]
    panels: dict[str, list[Panel]]
    rest: float


class Latest:
    """Keeps the last figures: a page that is loaded again and again must not slow annotators."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: tuple[tuple[int | None, str], Figures] | None = None

    def of(
        self, engine: Engine, config: CollectionConfig, t: dict[str, Any], language: str, now: float
    ) -> Figures:
        """The figures in this language: of this moment if someone's labels have been invalidated
        or restored since, else not older than REST, or than TIMES what they cost."""
        whole = select(func.max(Retraction.id)).where(Retraction.judgement_id.is_(None))
        with self._lock, reading(engine) as db:
            key = db.scalar(whole), language
            if self._kept is not None:
                kept, found = self._kept
                if kept == key and 0 <= now - found.numbers["time"] < found.rest:
                    return found
            began = time.monotonic()
            numbers = statistics(db, now)
            panels = figures(numbers, config, t["plots"])
            found = Figures(numbers, panels, max(REST, TIMES * (time.monotonic() - began)))
            self._kept = key, found
            return found
