import gzip
import json
from pathlib import Path

import pytest

from glm_jax.data.records import Dialogue, Pair, Prompt, Sample, draw, prompt_key, read, write
from glm_jax.errors import InputError

ASK = [{"role": "user", "content": "你好 <|user|>\n"}]
REAL = Path(__file__).parents[3] / "shared" / "data"

RECORDS = [
    (Prompt(id="a", prompt=ASK, category="qa", task={"ask": [1, None]}), Prompt),
    (Dialogue(id="a", prompt=ASK, response=""), Dialogue),
    (Pair(id="a", prompt=ASK, chosen="x", rejected="y", tie=True, annotator="7"), Pair),
    (
        Sample(
            id="a",
            sample=1,
            prompt=ASK,
            text="x",
            tokens=[3, 0],
            log_probs=[-0.1, -2.5],
            finish="stop",
        ),
        Sample,
    ),
]


@pytest.mark.parametrize("record, kind", RECORDS)
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_round_trip(tmp_path, record, kind, suffix):
    path = tmp_path / "new" / f"records.{suffix}"
    write(path, [record, record])
    assert read(path, kind) == [record, record]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "records.jsonl"
    write(path, [{"kept": 1}])
    with pytest.raises(ValueError):
        write(path, [{"kept": 2}, {"score": float("nan")}])
    assert path.read_text() == '{"kept": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_same_records_same_bytes(tmp_path):
    for name in ("a.gz", "b.gz"):
        write(tmp_path / name, [record for record, _ in RECORDS])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_foreign_fields_ids_and_categories(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": ASK, "chosen": "x", "rejected": "y", "set": 3, "lang": "zh"}] * 2
    path.write_text("\ufeff\n" + "\n\n".join(json.dumps(row) for row in rows) + "\n\n")
    pairs = read(path, Pair, category="set")
    assert [(pair.id, pair.category) for pair in pairs] == [("2", "3"), ("4", "3")]


GOOD = json.dumps({"prompt": ASK, "response": "x"})


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"prompt": ', "not JSON"),
        ('{"prompt": "\\ud800"}', "not JSON"),
        ("[1]", "expected a JSON object, got list"),
        (json.dumps({"prompt": ASK}), "field 'response' is missing"),
        (json.dumps({"prompt": ASK, "response": 5}), r"field 'response': .*string, got 5"),
        (json.dumps({"prompt": [], "response": "x"}), "field 'prompt' is empty"),
        (json.dumps({"prompt": "hi", "response": "x"}), "field 'prompt': .*list, got 'hi'"),
        (GOOD.replace("user", "human", 1), r"field 'prompt\.0\.role': .*'user'.*got 'human'"),
        (GOOD.replace("user", "assistant", 1), "ends with an assistant message"),
        (GOOD.replace("content", "text"), r"field 'prompt\.0\.content' is missing"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "dialogues.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(InputError, match=rf"dialogues\.jsonl:2: .*{message}") as error:
        read(path, Dialogue)
    assert "\n" not in str(error.value)


def test_a_number_is_finite(tmp_path):
    path, row = tmp_path / "pairs.jsonl", {"prompt": ASK, "chosen": "x", "rejected": "y"}
    path.write_text(json.dumps(row | {"margin": 0.5}))
    assert read(path, Pair)[0].margin == 0.5
    path.write_text(json.dumps(row | {"margin": "much"}).replace('"much"', "1e999"))
    with pytest.raises(InputError, match=r"pairs\.jsonl:1: .*margin"):
        read(path, Pair)


@pytest.mark.parametrize(
    "wrong",
    [
        {"margin": True},
        {"tie": "no"},
        {"weight": "2"},
        {"votes": {"chosen": 1, "rejected": -1, "tie": 0}},
        {"votes": {"chosen": 2**32, "rejected": 1, "tie": 0}},
    ],
)
def test_numbers_and_votes_are_what_they_seem(tmp_path, wrong):
    path, row = tmp_path / "pairs.jsonl", {"prompt": ASK, "chosen": "x", "rejected": "y"}
    path.write_text(json.dumps(row | wrong))
    with pytest.raises(InputError, match=rf"pairs\.jsonl:1: field '{next(iter(wrong))}"):
        read(path, Pair)


def test_equal_votes_are_read_as_a_tie(tmp_path):
    path, row = tmp_path / "pairs.jsonl", {"prompt": ASK, "chosen": "x", "rejected": "y"}
    given = [(1, 1, 0), (2, 1, 0), (2, 1, 3)]
    votes = [dict(zip(("chosen", "rejected", "tie"), counts, strict=True)) for counts in given]
    path.write_text("\n".join(json.dumps(row | {"votes": counts}) for counts in votes))
    assert [pair.tie for pair in read(path, Pair)] == [True, False, True]


def test_a_missing_category_is_named(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    path.write_text(GOOD)
    with pytest.raises(InputError, match=r"dialogues\.jsonl:1: field 'set'"):
        read(path, Dialogue, category="set")


def test_bad_files(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    (tmp_path / "plain.gz").write_text(GOOD)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(GOOD.encode() * 99)[:-20])
    for name, message in [
        ("none.jsonl", "no such file"),
        ("empty.jsonl", "no records"),
        ("latin.jsonl", "1: not UTF-8: byte 13 of the row"),
        ("plain.gz", "cannot be read"),
        ("cut.gz", "cannot be read"),
        ("", "cannot be read"),
    ]:
        with pytest.raises(InputError, match=message):
            read(tmp_path / name, Dialogue)


def test_keys_and_draws_are_pure():
    assert prompt_key(ASK) == prompt_key([{"content": ASK[0]["content"], "role": "user"}])
    assert prompt_key(ASK) != prompt_key(ASK * 2)
    assert draw(0, "a") == draw(0, "a") != draw(1, "a")
    draws = [draw(0, str(i)) / 2**64 for i in range(2000)]
    assert abs(sum(draws) / len(draws) - 0.5) < 0.03


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not beside this checkout")
@pytest.mark.parametrize(
    "name, kind, category, rows",
    [
        ("real_pairs_open_train", Pair, "set", 9462),
        ("real_pairs_open_test", Pair, "set", 1041),
        ("oasst1_zh_sft", Dialogue, None, 689),
        ("llamafactory_alpaca_zh", Dialogue, None, 1000),
        ("llamafactory_alpaca_en", Dialogue, None, 999),
        ("gsm8k_train", Dialogue, None, 7473),
        ("gsm8k_test", Dialogue, None, 1319),
        ("cvalues_prompts", Prompt, "domain", 664),
    ],
)
def test_real_files_are_read_whole(name, kind, category, rows):
    records = read(REAL / f"{name}.jsonl.gz", kind, category=category)
    assert len(records) == rows
    assert all((record.category is None) == (category is None) for record in records)
