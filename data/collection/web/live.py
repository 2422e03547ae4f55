"""More pairs from a model, made while annotators wait for them."""

import logging
import time
from collections.abc import Callable, Iterable
from threading import Lock, Thread
from typing import TypeAlias

from sqlalchemy import Engine

from glm_jax.data.collection.loading import load_pairs
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import writing
from glm_jax.data.records import Pair, Sample
from glm_jax.errors import InputError

Sampler: TypeAlias = Callable[[], Iterable[Pair | Sample]]
"samples answers to the next few prompts; nothing when there are no more prompts"
REST = 60.0  # seconds until a model that gave nothing, or failed, is asked again
log = logging.getLogger(__name__)


class LiveSampling:
    """Asks the model for more, one request at a time, in a thread of its own."""

    def __init__(self, sampler: Sampler, engine: Engine, config: CollectionConfig) -> None:
        self._sampler, self._engine, self._config = sampler, engine, config
        self._busy = Lock()
        self._rests_until = 0.0
        self._made: list[Pair | Sample] = []  # and not in the database yet

    def goes_on(self) -> bool:
        """Begins unless it runs already; whether pairs may come soon."""
        if time.monotonic() < self._rests_until:
            return False
        if self._busy.acquire(blocking=False):
            Thread(target=self._run, name="live sampling", daemon=True).start()
        return True

    def _run(self) -> None:
        try:
            self._made = self._made or list(self._sampler())
            if not self._made:
                self._rests_until = time.monotonic() + REST
                return
            with writing(self._engine) as db:
                load_pairs(db, self._made, self._config)
            self._made = []
        except InputError:  # these would be refused for ever
            self._made = []
            log.exception("what the model wrote cannot be kept")
            self._rests_until = time.monotonic() + REST
        except Exception:
            log.exception("the model wrote no new pairs")
            self._rests_until = time.monotonic() + REST
        finally:
            self._busy.release()
