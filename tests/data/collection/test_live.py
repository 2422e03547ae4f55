"""Pairs that a model makes while people wait: what failed once is made later, and nothing twice."""

from dataclasses import replace

import pytest
from sqlalchemy import func, select

from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import reading
from glm_jax.data.collection.tables import Pair
from glm_jax.data.collection.web import live
from glm_jax.errors import InputError
from tests.data.collection.conftest import made_up_samples

CONFIG = CollectionConfig()


@pytest.fixture
def told(monkeypatch, caplog):
    """What failed, in order; and nobody rests."""
    monkeypatch.setattr(live, "REST", 0.0)
    return lambda: [record.exc_info[0] for record in caplog.records]


def run(sampling, times):
    for _ in range(times):
        assert sampling.goes_on()
        with sampling._busy:  # until it is over
            pass


def pairs(engine):
    with reading(engine) as db:
        return db.scalar(select(func.count()).select_from(Pair))


def test_a_model_that_failed_is_asked_again(engine, told):
    samples = list(made_up_samples(4, 2))
    answers = iter([samples[:4], RuntimeError("out of memory"), samples[4:], []])

    def sampler():
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    run(live.LiveSampling(sampler, engine, CONFIG), 4)
    assert told() == [RuntimeError] and pairs(engine) == 4


def test_what_could_not_be_kept_is_not_lost(engine, told, monkeypatch):
    answers, kept = iter([list(made_up_samples(2, 2)), []]), live.load_pairs
    failures = iter([OSError("disk full")])

    def load(*given):
        for failure in failures:
            raise failure
        return kept(*given)

    monkeypatch.setattr(live, "load_pairs", load)
    run(live.LiveSampling(lambda: next(answers), engine, CONFIG), 3)
    assert told() == [OSError] and pairs(engine) == 2


def test_what_is_refused_does_not_stand_in_the_way(engine, told):
    first, second = list(made_up_samples(2, 2))[:2], list(made_up_samples(2, 2))[2:]
    answers = iter([[replace(first[0], text="a\0"), first[1]], second])
    run(live.LiveSampling(lambda: next(answers), engine, CONFIG), 2)
    assert told() == [InputError] and pairs(engine) == 1
