"""What is exported, read back, says what people said: no more, no less, and nothing else."""

import csv
import gzip
import json
from collections import Counter
from random import Random
from uuid import UUID

import pytest

from glm_jax.data import records
from glm_jax.data.collection.exports import exporting
from glm_jax.data.collection.figures.statistics import statistics
from glm_jax.data.collection.store import reading, writing
from glm_jax.data.collection.tables import Table
from glm_jax.data.filters import filter_pairs
from glm_jax.data.records import Pair
from glm_jax.errors import InputError
from glm_jax.train.preference.filtering import filter_file
from tests.data.collection.labels.conftest import NOON

VERDICTS = ("first", "second", "tie", "cannot_judge", "unwilling")


@pytest.fixture
def truth(scene):
    """Forty prompts with three responses each, judged by up to four people, with everything that
    must not come out among it; what must: (first id, second id) -> {person: verdict}."""
    rng = Random(1)
    said = {}
    for person in ("u", "v", "w", "x", "bad"):
        scene.person(person)
    for number in range(40):
        for two in ("ab", "bc", "ac"):
            gold = {"purpose": "gold", "answer": "first"} if number == 7 else {}
            pair = scene.pair(*two, prompt=f"q{number}", **gold)
            for person in rng.sample(["u", "v", "w", "x"], rng.randrange(5)):
                verdict = rng.choice(VERDICTS)
                swapped = rng.random() < 0.5
                if rng.random() < 0.1:
                    scene.retract(person, "undone", scene.judge(person, pair, verdict))
                    continue
                scene.judge(person, pair, verdict, swapped=swapped)
                if verdict in VERDICTS[:3] and not gold:
                    said.setdefault((pair.first_id, pair.second_id), {})[person] = verdict
                if rng.random() < 0.1:
                    scene.judge(person, pair, "second", repeat=True, swapped=not swapped)
            scene.judge("bad", pair, "second")
    scene.judge("u", scene.pair("k", "l", purpose="practice", answer="first"), "second")
    scene.retract("bad", "invalidated")
    return said


def exported(scene, kind, path):
    path = path / f"{kind}.{exporting.KINDS[kind][1]}"
    assert exporting.export(scene.db, kind, path) == len(lines(path))
    return path


def lines(path):
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [*map(json.loads, text.splitlines())]


def votes_of(truth, better, worse):
    """Chosen, rejected, tie, as people said them."""
    first, second = sorted((better, worse))
    said = Counter(truth[first, second].values())
    mine, other = ("first", "second") if better == first else ("second", "first")
    return said[mine], said[other], said["tie"]


def test_raw_holds_every_judgement_once(scene, truth, tmp_path):
    found = records.read(exported(scene, "raw", tmp_path), Pair)
    told = {}
    for pair in found:
        ids = pair.chosen_id, pair.rejected_id
        verdict = "tie" if pair.tie else "first" if ids == tuple(sorted(ids)) else "second"
        assert pair.annotator not in told.setdefault(tuple(sorted(ids)), {})
        told[tuple(sorted(ids))][pair.annotator] = verdict
        assert (pair.chosen, pair.rejected) == (ids[0][-1], ids[1][-1])
        assert pair.prompt_id == ids[0][:-2] and pair.category == "talk"
        assert (pair.strength is None) == pair.tie and pair.milliseconds > 0
    assert told == truth
    assert len({pair.id for pair in found}) == len(found)


def test_aggregated_holds_every_pair_once_with_its_votes(scene, truth, tmp_path):
    found = records.read(exported(scene, "aggregated", tmp_path), Pair)
    assert len(found) == len(truth)
    for pair in found:
        votes = votes_of(truth, pair.chosen_id, pair.rejected_id)
        assert tuple(pair.votes.values()) == votes
        assert votes[0] >= votes[1] and pair.tie == records.is_tie(*votes)
        assert (pair.strength is None) == pair.tie


@pytest.mark.parametrize("kind", ["raw", "aggregated", "argilla", "labelstudio"])
def test_a_round_trip_gives_the_same_labels(scene, truth, tmp_path, kind):
    """Through `data filter` every pair that is no tie and on no cycle stays, with its votes."""
    path, kept = exported(scene, kind, tmp_path), tmp_path / "kept.jsonl"
    filter_file(str(path), str(kept), min_agreement=0)
    loose = [
        Pair(id=str(i), prompt=[{"role": "user", "content": better[:-2]}], chosen=better,
             rejected=worse)
        for i, pair in enumerate(truth)
        for better, worse in (pair, pair[::-1])
        if votes_of(truth, better, worse)[0] > votes_of(truth, better, worse)[1]
        and not records.is_tie(*votes_of(truth, better, worse))
    ]  # fmt: skip
    expected = {(pair.chosen, pair.rejected) for pair in filter_pairs(loose)[0]}
    found = {}
    for pair in records.read(kept, Pair):
        prompt = pair.prompt[0]["content"].removeprefix("What of ").removesuffix("?")
        found[f"{prompt}/{pair.chosen}", f"{prompt}/{pair.rejected}"] = pair.votes
    assert set(found) == expected and len(expected) > 20
    for (better, worse), votes in found.items():
        expected_votes = votes_of(truth, better, worse)
        assert (tuple(votes.values()) if votes else (1, 0, 0)) == expected_votes


@pytest.mark.parametrize("kind", ["raw", "aggregated", "argilla", "labelstudio"])
def test_a_senior_decides_what_is_exported(scene, tmp_path, kind):
    """Three disagree on each pair, often with the senior; `data filter` follows the decision."""
    expected = set()
    for i in range(24):
        pair, verdict = scene.pair(prompt=f"q{i}"), VERDICTS[i % 3]
        for name, other in zip("uvw", VERDICTS, strict=False):
            scene.judge(name, pair, other)
        pair.decision = scene.judge("boss", pair, verdict, to_decide=True).id
        if verdict != "tie":
            expected.add((f"What of q{i}?", "a" if verdict == "first" else "b"))
    path, kept = exported(scene, kind, tmp_path), tmp_path / "kept.jsonl"
    filter_file(str(path), str(kept))
    found = records.read(kept, Pair)
    assert len(found) == 16
    assert {(pair.prompt[0]["content"], pair.chosen) for pair in found} == expected
    if kind in ("raw", "aggregated"):
        assert all(tuple(pair.votes.values()) == (5, 1, 1) for pair in found)
    if kind == "raw":
        whose = Counter(row.get("decided_by", row.get("annotator")) for row in lines(path))
        assert whose == Counter(dict.fromkeys(["u", "v", "w", "boss"], 24))


def test_repeats_are_exported_as_repeats(scene, truth, tmp_path):
    rows = lines(exported(scene, "repeats", tmp_path))
    assert rows and all(row["repeat"] and row["annotator"] != "bad" for row in rows)
    raw = exported(scene, "raw", tmp_path).read_text()
    assert '"repeat"' not in raw and '"bad"' not in raw and '"k"' not in raw


def test_gold_is_no_label(scene, tmp_path):
    """Nothing whose answer was known before gets into reward training as what people said."""
    known = scene.pair(purpose="gold", answer="second", prompt="known")
    scene.judge("u", known, "second")
    scene.judge("u", known, "second", repeat=True, swapped=True)
    scene.judge("v", known, "first")
    scene.judge("v", scene.pair(prompt="open"), "first")
    for kind in ("raw", "aggregated", "argilla", "labelstudio"):
        (row,) = lines(exported(scene, kind, tmp_path))
        assert "What of open?" in json.dumps(row), kind
    rows = lines(exported(scene, "gold", tmp_path))
    assert [(row["annotator"], row["chosen"], row["right"]) for row in rows] == [
        ("u", "b", True), ("v", "a", False),
    ]  # fmt: skip
    assert all(row["gold"] and row["prompt_id"] == "known" for row in rows)


def test_a_row_tells_all_that_was_said(scene, tmp_path):
    """The second response stood left and was clearly better, though less fluent."""
    said = {"helpfulness": "second", "harmlessness": "tie", "fluency": "first"}
    more = {"strength": 2, "criteria": said, "comment": "Hm.", "flags": ["unanswerable"]}
    scene.judge("u", scene.pair("a", "b", prompt="q"), "second", swapped=True, **more)
    scene.judge("u", scene.pair("c", "d", prompt="q"), "tie", swapped=True)
    row, tie = lines(exported(scene, "raw", tmp_path))
    assert row == {
        "id": "1",
        "prompt": [{"role": "user", "content": "What of q?"}],
        "chosen": "b",
        "rejected": "a",
        "tie": False,
        "strength": 2,
        "category": "talk",
        "language": "en",
        "annotator": "u",
        "milliseconds": 1000,
        "prompt_id": "q",
        "chosen_id": "q/b",
        "rejected_id": "q/a",
        "side": "left",
        "criteria": {"helpfulness": "chosen", "harmlessness": "tie", "fluency": "rejected"},
        "flags": ["unanswerable"],
        "comment": "Hm.",
        "guidelines": 1,
        "created": NOON + 1,
    }
    assert (tie["tie"], tie["chosen"], tie["side"]) == (True, "c", "right")


def test_other_tools_rows_keep_who_and_how_long(scene, tmp_path):
    """A criterion in which the other response is better is no vote, nor is a tie in one."""
    pair = scene.pair()
    scene.judge("u", pair, "first", criteria={"fluency": "second", "helpfulness": "tie"})
    scene.judge("v", pair, "tie", criteria={"fluency": "first"})
    for kind, milliseconds in (("argilla", [None, None]), ("labelstudio", [1000, 1000])):
        found = records.read(exported(scene, kind, tmp_path), Pair)
        assert [(p.annotator, p.chosen, p.tie) for p in found] == [("u", "a", 0), ("v", "a", 1)]
        assert [p.milliseconds for p in found] == milliseconds


def test_other_tools_can_import_it(scene, tmp_path):
    """One array each; whoever made a label need have no account there."""
    pair = scene.pair()
    for name in ("ann", "ben"):
        scene.judge(name, pair, "first", criteria={"fluency": "tie"})
    argilla, labelstudio = (lines(exported(scene, k, tmp_path)) for k in ("argilla", "labelstudio"))
    users = [answer["user_id"] for r in argilla for a in r["responses"].values() for answer in a]
    assert len({UUID(user) for user in users}) == 2
    assert {name for record in argilla for name in record["annotators"].values()} == {"ann", "ben"}
    made = [annotation for task in labelstudio for annotation in task["annotations"]]
    assert len(made) == 2 and all("completed_by" not in annotation for annotation in made)


def test_time_that_nobody_measured_is_no_time(scene, tmp_path):
    """Of pages without our script."""
    scene.judge("u", scene.pair(), "first", milliseconds=None)
    for kind in ("raw", "labelstudio"):
        assert records.read(exported(scene, kind, tmp_path), Pair)[0].milliseconds is None
    told = statistics(scene.db, NOON)["seconds"]
    assert (told["n"], told["quartiles"]) == (0, None)
    assert [row["median_seconds"] for row in exporting.rows(scene.db, "daily")] == [None]
    scene.judge("u", scene.pair(), "first", milliseconds=7000)
    assert statistics(scene.db, NOON)["seconds"]["quartiles"] == [7, 7, 7]
    assert [row["median_seconds"] for row in exporting.rows(scene.db, "daily")] == [7]


def test_either_database_tells_the_same(scene, truth, either):
    """PostgreSQL's cursors and its SQL, against SQLite in memory."""
    scene.pair("y", "z", prompt="q1").decision = scene.judge(
        "boss", scene.pair("x", "z", prompt="q1"), "tie", to_decide=True
    ).id
    with writing(either) as db:
        for table in Table.metadata.sorted_tables:
            rows = [row._asdict() for row in scene.db.execute(table.select())]
            if rows:
                db.execute(table.insert(), rows)
    with reading(either) as db:
        for kind in exporting.KINDS:
            found = list(exporting.rows(db, kind))
            assert found == list(exporting.rows(scene.db, kind)) and found, kind
        assert statistics(db, NOON) == statistics(scene.db, NOON)


def test_prompts_are_labelled_by_most_people(scene, tmp_path):
    for prompt, *people in [
        ("clear", [], []),
        ("vague", ["unclear_intention"], ["unclear_intention"], []),
        ("divided", ["unanswerable"], []),
    ]:
        one, other = scene.pair(prompt=prompt), scene.pair("c", "d", prompt=prompt)
        for name, flags in zip("uvw", people, strict=False):
            scene.judge(name, one, "first")  # a flag need be raised on one of the pairs only
            scene.judge(name, other, "cannot_judge" if flags else "first", flags=flags)
    scene.judge("u", scene.pair(prompt="unread"), "unwilling")
    found = records.read(exported(scene, "prompts", tmp_path), records.Prompt)
    assert {p.id: p.quality for p in found} == {"clear": "clear", "vague": "unclear_intention"}


def test_daily_figures(scene, tmp_path):
    yesterday = {"created": NOON - 86400}
    scene.judge("=u", scene.pair(), "tie", **yesterday)
    scene.judge("=u", scene.pair(purpose="gold", answer="first"), "second", **yesterday)
    for verdict in ("first", "cannot_judge", "unwilling"):
        scene.judge("=u", scene.pair(), verdict, milliseconds=1_800_000)
    scene.judge("=u", scene.pair(), "first", repeat=True, milliseconds=1_800_000)
    scene.judge("v", scene.pair(), "first")
    path = tmp_path / "daily.csv"
    assert exporting.export(scene.db, "daily", path) == 3
    with path.open() as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert [row[1:] for row in rows] == [
        ["'=u", "2", "1", "1", "0", "0", "0", "1", "0", "1.5", "0.001"],
        ["'=u", "4", "1", "0", "1", "1", "1", "0", "0", "1800.0", "2.0"],
        ["v", "1", "1", "0", "0", "0", "0", "0", "0", "1.0", "0.0"],
    ]
    assert rows[0][0] < rows[1][0] == rows[2][0] == "2023-11-14"


def test_a_file_is_there_whole_or_not_at_all(scene, tmp_path):
    with pytest.raises(InputError, match=r"nothing yet to export as raw"):
        exporting.export(scene.db, "raw", tmp_path / "raw.jsonl")
    with pytest.raises(InputError, match="unknown export 'all'; there are: raw, aggregated"):
        exporting.export(scene.db, "all", tmp_path / "all.jsonl")
    with pytest.raises(
        InputError, match=r"all\.jsonl: expected a name that ends in \.json, as arg"
    ):
        exporting.export(scene.db, "argilla", tmp_path / "all.jsonl")
    assert not list(tmp_path.iterdir())
    scene.judge("u", scene.pair(), "first")
    assert exporting.export(scene.db, "raw", tmp_path / "raw.jsonl.gz") == 1
    packed = (tmp_path / "raw.jsonl.gz").read_bytes()
    assert len(gzip.decompress(packed).splitlines()) == 1
