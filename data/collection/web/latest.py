"""The figures of the administrator's page, which are not worked out for every look at it."""

import time
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Engine, func, select

from glm_jax.data.collection.figures.statistics import statistics
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import reading
from glm_jax.data.collection.tables import Retraction
from glm_jax.data.collection.web.pages import texts
from glm_jax.data.collection.web.panels import panels
from glm_jax.data.plots import Panel

REST = 30  # seconds, at least, that figures are shown before they are worked out again
TIMES = 20  # and so many times what that cost: annotators need the processor


class Figures(NamedTuple):
    retraction: int | None  # the last, of all labels of somebody
    numbers: dict[str, Any]
    panels: dict[str, list[Panel]]
    rest: float  # seconds


class LatestFigures:
    """Keeps the last figures: a page that is loaded again and again must not slow annotators."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[str, Figures] = {}  # by language

    def get(self, engine: Engine, config: CollectionConfig, language: str, now: float) -> Figures:
        """The figures in this language: of this moment if someone's labels have been invalidated
        or restored since, else not older than REST, or than TIMES what they cost.

        While somebody has them worked out, others see the last ones: whoever waits holds a thread
        that annotators need.
        """
        kept = self._kept.get(language)
        if not self._lock.acquire(blocking=kept is None):
            return kept
        try:
            return self._worked_out(engine, config, language, now)
        finally:
            self._lock.release()

    def _worked_out(
        self, engine: Engine, config: CollectionConfig, language: str, now: float
    ) -> Figures:
        whole = select(func.max(Retraction.id)).where(Retraction.judgement_id.is_(None))
        with reading(engine) as db:
            kept, last = self._kept.get(language), db.scalar(whole)
            if kept and kept.retraction == last and 0 <= now - kept.numbers["time"] < kept.rest:
                return kept
            began = time.monotonic()
            numbers = statistics(db, now)
            drawn = panels(numbers, config, texts(f"admin.{language}")["plots"])
            rest = max(REST, TIMES * (time.monotonic() - began))
            self._kept[language] = Figures(last, numbers, drawn, rest)
            return self._kept[language]
