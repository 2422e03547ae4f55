"""What of pairs and samples comes into the database."""

from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy import text as sql

from glm_jax.data.collection import loading
from glm_jax.data.collection.loading import load_gold, load_pairs
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.store import open_store, reading, writing
from glm_jax.data.collection.tables import Pair, Prompt, Response
from glm_jax.data.collection.web.guidelines import publish
from glm_jax.data.records import Pair as Record
from glm_jax.data.records import Sample
from glm_jax.errors import InputError

CONFIG = CollectionConfig()


def pair(one, other, prompt="q", **fields):
    ask = [{"role": "user", "content": prompt}]
    return Record(id=f"{prompt}:{one}:{other}", prompt=ask, chosen=one, rejected=other, **fields)


def sample(number, text, prompt="q"):
    ask = [{"role": "user", "content": prompt}]
    return Sample(
        id=prompt, sample=number, prompt=ask, text=text, tokens=[], log_probs=[], finish="stop",
        score=3.5,
    )  # fmt: skip


def load(engine, records, config=CONFIG):
    with writing(engine) as db:
        return tuple(load_pairs(db, records, config))


def test_all_pairs_of_samples_once(either):
    found = [sample(i, f"text {i}", prompt) for prompt in "qr" for i in range(4)]
    assert load(either, found[:6]) == (2, 6, 7, 0, 0)
    assert load(either, found) == (0, 2, 5, 7, 0)
    assert load(either, [*found, sample(4, "text 1")]) == (0, 0, 0, 12, 0)
    with reading(either) as db:
        pairs = db.scalars(select(Pair)).all()
        assert all(p.first_id < p.second_id and p.answer is None for p in pairs)
        assert len({p.place for p in pairs}) == 12


def test_what_a_file_says_twice_was_not_known_before(engine, monkeypatch):
    """Models draw an answer twice; and three samples of a prompt lie across two batches."""
    monkeypatch.setattr(loading, "AT_ONCE", 2)
    found = [sample(i, text, prompt) for prompt in "qr" for i, text in enumerate("aba")]
    assert load(engine, found) == (2, 4, 2, 0, 0)
    assert load(engine, found) == (0, 0, 0, 2, 0)


def test_responses_are_known_by_id_or_text(engine):
    assert load(engine, [pair("a", "b", chosen_id="1", rejected_id="2")]) == (1, 2, 1, 0, 0)
    assert load(engine, [pair("b", "a"), pair("b", "b"), pair("a", "c")]) == (0, 1, 1, 1, 1)
    other = pair("x", "y", "another", chosen_id="1", rejected_id="2")
    assert load(engine, [other, other]) == (1, 2, 1, 0, 0)
    with reading(engine) as db:
        texts = {name: text for name, text in db.execute(select(Response.id, Response.text))}
        assert {texts[name] for name in ("1", "2")} == {"a", "b"} and len(texts) == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pair("other", "b", chosen_id="1"), "response '1' has another text"),
        (pair("a", "b", "r", prompt_id="p"), "prompt 'p' has other messages"),
        (pair("a\0", "c", prompt_id="p"), "cannot be kept"),
        (pair("a", "c", "r", prompt_id="p\0"), "cannot be kept"),
        (pair("a", "c", "r", prompt_id="q", category="\0"), "cannot be kept"),
        (pair("a", "c", prompt_id="p", rejected_id="\0"), "cannot be kept"),
    ],
)
def test_an_id_with_two_meanings_changes_nothing(either, wrong, message):
    engine = either
    known = pair("a", "b", prompt_id="p", chosen_id="1")
    load(engine, [known])
    wrong_here = wrong if wrong.prompt_id else pair("other", "b", prompt_id="p", chosen_id="1")
    with pytest.raises(InputError, match=message):
        load(engine, [pair("new", "newer"), wrong_here])
    with reading(engine) as db:
        assert db.scalar(select(func.count()).select_from(Prompt)) == 1


def test_gold_keeps_its_answer(engine):
    with writing(engine) as db:
        gold = [pair("a", "b", chosen_id="2", rejected_id="1"), pair("a", "b", "r", tie=True)]
        assert load_gold(db, gold, CONFIG).pairs == 2
        assert load_pairs(db, gold, CONFIG).known == 2
        assert [(p.answer, p.queue) for p in db.scalars(select(Pair))] == [
            ("second", "gold"), ("tie", "gold"),
        ]  # fmt: skip


def test_answers_that_are_known_are_not_compared_with_samples(engine):
    """Unless a sample says the same."""
    found = [sample(i, f"text {i}") for i in range(3)]
    with writing(engine) as db:
        load_gold(db, [pair("right", "wrong"), pair("text 2", "worse")], CONFIG)
    assert load(engine, found[:2])[2:] == (1, 0, 0)
    assert load(engine, found)[2:] == (2, 1, 0)
    with reading(engine) as db:
        texts = dict(db.execute(select(Response.id, Response.text)).all())
        labels = db.execute(select(Pair.first_id, Pair.second_id).where(Pair.purpose == "label"))
        assert {texts[name] for both in labels for name in both} == {s.text for s in found}


def test_a_prompt_is_known_by_its_messages(engine):
    """Nobody gets the same texts twice because two files call them differently."""
    assert load(engine, [pair("a", "b")]) == (1, 2, 1, 0, 0)
    called = pair("b", "a", prompt_id="p", chosen_id="2", rejected_id="1")
    assert load(engine, [called, pair("a", "b", prompt_id="r")]) == (0, 0, 0, 1, 0)
    found = [sample(i, f"text {i}") for i in range(2)]
    again = [replace(one, id="another") for one in found]
    assert load(engine, [*found, *again, pair("text 0", "text 1", prompt_id="p")])[:3] == (0, 2, 5)
    with reading(engine) as db:
        texts = Counter(db.scalars(select(Response.text)))
        assert set(texts.values()) == {1} and len(db.scalars(select(Prompt)).all()) == 1


def test_ids_of_samples_are_numbers_of_lines(engine):
    """Of files that have none, so that two of them call different prompts alike."""
    found = [replace(sample(i, f"text {i}", prompt), id="1") for prompt in "qr" for i in range(2)]
    assert load(engine, found[:2])[:3] == (1, 2, 1)
    assert load(engine, found[2:])[:3] == (1, 2, 1)
    assert load(engine, found) == (0, 0, 0, 2, 0)


@pytest.mark.parametrize("purpose", ["gold", "practice"])
def test_samples_have_no_answer_to_check_people_by(engine, purpose):
    message = f"'q': {purpose} needs pairs with `chosen`"
    with pytest.raises(InputError, match=message), writing(engine) as db:
        load_gold(db, [pair("a", "b"), sample(0, "x")], CONFIG, purpose=purpose)
    with reading(engine) as db:
        assert db.scalars(select(Pair)).all() == []


def test_overlap_is_drawn_by_hash(engine, tmp_path):
    config = CollectionConfig(overlap=0.3, annotators=4)
    found = [pair("a", "b", f"prompt {i}") for i in range(1000)]
    load(engine, found, config)
    again = open_store(str(tmp_path / "again.db"))
    load(again, reversed(found), config)
    wanted = []
    for store in (engine, again):
        with reading(store) as db:
            columns = select(Pair.first_id, Pair.wanted, Pair.place).order_by(Pair.first_id)
            wanted.append(db.execute(columns).all())
    again.dispose()
    assert wanted[0] == wanted[1]
    several = sum(row.wanted == 4 for row in wanted[0])
    assert 250 < several < 350 and several + sum(row.wanted == 1 for row in wanted[0]) == 1000


def test_guidelines_have_versions(engine):
    with writing(engine) as db:
        assert [publish(db, text, 0.0) for text in ("a", "a", "b", "a")] == [1, 1, 2, 3]


def test_pairs_are_counted_by_their_numbers(either):
    """Also after a load that failed; and PostgreSQL's planner hears of them."""
    with pytest.raises(InputError):
        load(either, [*(pair(f"{i}", "b") for i in range(700)), pair("a\0", "b")])
    load(either, [pair(f"{i}", "b") for i in range(700)])
    load(either, [pair("1", "c")])
    with reading(either) as db:
        assert db.scalars(select(Pair.id).order_by(Pair.id)).all() == list(range(1, 702))
        if either.dialect.name == "postgresql":
            known = sql("SELECT reltuples FROM pg_class WHERE relname = 'pairs'")
            assert db.scalar(known) == 700, "of many at once, and not again of one"


@pytest.mark.parametrize("url", ["{}/no/such/folder.db", "{}", "oracle9://x", "://", "mysql://x"])
def test_what_is_no_database_is_said(tmp_path, url):
    with pytest.raises(InputError, match=r"expected a path for SQLite, or postgresql://"):
        open_store(url.format(tmp_path))


def test_a_file_that_is_no_database(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no database " * 100)
    with pytest.raises(InputError, match=r"notes\.txt: cannot be opened"):
        open_store(str(file))
