"""The table, and the two passes over a file: what one process does, several do, too."""

import gzip
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from glm_jax.data import filters, lengths, pair_table, parallel
from glm_jax.data.balance import balance
from glm_jax.data.near_duplicates import near_duplicate_rows
from glm_jax.data.pair_table import COLUMNS, cut, group_codes, scan
from glm_jax.data.records import Pair, read, write
from glm_jax.data.rewriting import rewrite
from glm_jax.data.sources import open_pairs
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer

REAL = Path(__file__).parents[3] / "shared/data/real_pairs_open_train.jsonl.gz"


def pair(i, **fields):
    fields = {"prompt": [{"role": "user", "content": f"question {i // 2}"}]} | fields
    fields = {"chosen": "good " * (i % 7 + 1), "rejected": f"bad {i}"} | fields
    return Pair(id=f"p{i}", **fields)


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Large, as far as cutting goes, and read by two processes."""
    monkeypatch.setattr(pair_table, "PART", 2000)
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda _: {0, 1})
    rows = [pair(i, annotator=f"a{i % 3 + i // 50}", category="xyz"[i % 3]) for i in range(200)]
    write(tmp_path / "pairs.jsonl", rows)
    return tmp_path / "pairs.jsonl"


def test_a_pair_takes_at_most_150_bytes():
    rows = [pair(i, votes={"chosen": i, "rejected": 1, "tie": 0}, weight=i, strength=i,
                 milliseconds=i, annotator=f"{i}", category=f"{i}", language=f"{i}")
            for i in range(1, 9)]  # fmt: skip
    table = scan([rows])
    assert table.votes.strides[0] and table.annotator.strides[0]
    assert sum(getattr(table, name)[:1].nbytes for name in COLUMNS) == 97


def test_parts_in_processes_give_the_table_of_the_whole(file):
    parts = cut(open_pairs(file))
    assert len(parts) > 5
    several, one = scan(parts, seed=3), scan([read(file, Pair)], seed=3)
    assert several.names == one.names and sum(several.sizes) == len(one)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(several, name), getattr(one, name), err_msg=name)
    assert several.votes.strides[0] == 0  # which nobody gave


def test_groups_are_those_the_file_has():
    rows = [pair(0, category="a", language="en"), pair(1, category="a"), pair(2)]
    assert group_codes(scan([rows])).names == ["(none)", "a", "a/en"]
    assert group_codes(scan([rows]), ["language"]).names == ["(none)", "en"]
    with pytest.raises(InputError, match="group 'tie'"):
        group_codes(scan([rows]), ["tie"])


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_rows_are_written_where_they_were_decided_in_order(file, suffix):
    parts = cut(open_pairs(file))
    table = scan(parts)
    where = (np.arange(200) % 3 - 1).astype(np.int8)
    outputs = [file.with_name(f"{name}.{suffix}") for name in "ab"]
    rewrite(parts, table.sizes, where, outputs)
    pairs = read(file, Pair)
    assert [read(output, Pair) for output in outputs] == [pairs[1::3], pairs[2::3]]
    if suffix == "jsonl.gz":
        assert gzip.decompress(outputs[0].read_bytes()).startswith(b'{"id":"p1"')


def test_a_part_that_cannot_be_cut_is_never_in_memory_as_a_whole(tmp_path):
    texts = (pair(i, chosen="x" * 100_000) for i in range(200))
    tracemalloc.start()
    rewrite([texts], [200], np.zeros(200, np.int8), [tmp_path / "out.jsonl.gz"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6 and len(read(tmp_path / "out.jsonl.gz", Pair)) == 200


def test_nothing_is_written_unless_all_is(file):
    parts = cut(open_pairs(file))
    table, before = scan(parts), sorted(file.parent.iterdir())
    where = np.zeros(200, np.int8)
    with file.open("a") as more:
        more.write(json.dumps({"prompt": []}) + "\n")
    for broken in (parts, [*parts[:-1], []]):
        with pytest.raises(InputError):
            rewrite(broken, table.sizes, where, [file.with_name("out.jsonl")])
        assert sorted(file.parent.iterdir()) == before


def test_an_error_of_another_process_is_raised_here(file):
    with file.open("a") as more:
        more.write('{"prompt": []}\n')
    with pytest.raises(InputError, match=r"pairs\.jsonl:201: field 'chosen' is missing"):
        scan(cut(open_pairs(file)))


def test_leaks_duplicates_and_pairs_beyond_the_limit():
    first, ids = pair(0), {"chosen_id": "7", "rejected_id": "8"}
    again = Pair(**vars(first) | {"id": "again"} | ids)
    rows = [first, again, *(pair(i) for i in range(2, 6))]
    rows += [pair(9, prompt=pair(2).prompt), pair(11, prompt=pair(2).prompt)]
    later = [*pair(4).prompt, {"role": "assistant", "content": "x"}, *pair(0).prompt]
    held = scan([[pair(100, prompt=later)]])

    def fates(**options):
        kept, dropped = filters.filter_pairs(rows, **options)
        return len(kept), {p.id: reason for p, reason in dropped}

    assert fates() == (7, {"again": "duplicate"})
    assert fates(held_out=[held]) == (5, {"again": "duplicate", "p4": "held_out", "p5": "held_out"})
    n, found = fates(max_pairs_per_prompt=2)
    assert n == 5 and list(found.values()).count("too_many") == 2
    assert fates(max_pairs_per_prompt=1)[0] == 3


def test_near_duplicates_of_an_earlier_prompt():
    text = "Tell me, please, which mountains of Europe are higher than four thousand metres"
    texts = [text, text + "?", "What did the fox say to the crow about the cheese?", text]
    rows = [pair(i, prompt=[{"role": "user", "content": t}]) for i, t in enumerate(texts)]
    table, alive = scan([rows[:1], rows[1:]]), np.ones(4, bool)
    found = near_duplicate_rows([rows[:1], rows[1:]], table, alive, 0.8)
    assert found.tolist() == [False, True, False, False]
    alive[0] = False
    found = near_duplicate_rows([rows[:1], rows[1:]], table, alive, 0.8)
    assert found.tolist() == [False, False, False, True]


def test_tokens_are_counted_once_and_never_stale(tmp_path, monkeypatch):
    file = tmp_path / "pairs.jsonl"
    tokenizer = Tokenizer.word_level(["good", "bad", "question"])
    write(file, [pair(i) for i in range(9)])

    def count(texts=("chosen", "rejected")):
        parts = cut(open_pairs(file))
        return lengths.token_lengths(parts, scan(parts), tokenizer, texts, beside=file)

    found = count()
    assert found["chosen"].tolist() == [i % 7 + 2 for i in range(9)]
    assert set(found["rejected"].tolist()) == {3}
    sidecar = lengths.sidecar(file, tokenizer)
    assert sidecar.exists() and len(list(tmp_path.iterdir())) == 2
    counted = []
    encode = Tokenizer.encode_responses
    monkeypatch.setattr(
        Tokenizer, "encode_responses", lambda self, t: counted.append(len(t)) or encode(self, t)
    )
    assert count()["chosen"].tolist() == found["chosen"].tolist() and not counted
    assert count(("prompt", "chosen"))["prompt"].min() > 0 and not counted
    before = file.stat()
    file.write_text(file.read_text().replace("bad 1", "bad  "))  # as long as it was
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert count()["rejected"].tolist() == [3, 2, *[3] * 7] and counted == [9, 9]
    sidecar.write_bytes(sidecar.read_bytes()[:-30])
    assert count()["chosen"].tolist() == found["chosen"].tolist()


@pytest.mark.skipif(not REAL.exists(), reason="the real data sets are not beside this checkout")
@pytest.mark.parametrize("options", [{}, {"edges": [0, 10, 50]}, {"mode": "weight"}])
def test_real_pairs_are_exactly_even_in_every_bucket_of_every_group(options):
    """By an independent computation of lengths, groups and buckets."""
    pairs = read(REAL, Pair, category="set")
    table = scan([pairs])
    groups = group_codes(table)
    assert len(groups.names) == 7
    result = balance(table.chosen_lengths, table.rejected_lengths, table.draws, groups, **options)
    names = [f"{p.category}/{p.language}" for p in pairs]
    names = np.array(["(pooled)" if name in result.pooled else name for name in names])
    gap = np.array([len(p.chosen) - len(p.rejected) for p in pairs])
    weights = np.zeros(len(pairs))
    weights[result.kept] = 1 if result.weights is None else result.weights
    uneven = 0
    for row in result.rows:
        inside = (names == row["group"]) & (abs(gap) >= row["low"]) & (abs(gap) < row["high"])
        longer, shorter = inside & (gap > 0), inside & (gap < 0)
        assert weights[longer].sum() == pytest.approx(weights[shorter].sum(), rel=1e-12)
        uneven += longer.sum() != shorter.sum()
    assert uneven > 10
    assert (weights[gap == 0] == 1).all()


def test_what_a_killed_process_left_of_a_file_is_deleted_and_nothing_else(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    stale, living, other = (
        tmp_path / name
        for name in (
            f".out.jsonl.{dead.pid}",
            f".out.jsonl.{os.getppid()}",
            f".in.jsonl.{dead.pid}",
        )
    )
    for left in (stale, living, other):
        left.write_text("half")
    write(tmp_path / "out.jsonl", [pair(0)])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"out.jsonl", living.name, other.name}


def test_no_output_is_replaced_where_another_cannot_be_written(tmp_path):
    kept, folder = tmp_path / "kept.jsonl", tmp_path / "dropped.jsonl"
    kept.write_text("before")
    folder.mkdir()
    pairs = [pair(0), pair(1)]
    with pytest.raises(InputError, match=r"dropped\.jsonl: a folder lies there"):
        rewrite([pairs], [2], np.array([0, 1]), [kept, folder])
    assert kept.read_text() == "before"


def test_a_worker_whose_parent_is_gone_ends_without_a_word(tmp_path):
    work = pickle.dumps((len, ("x" * 9,)))
    with subprocess.Popen(
        parallel._START, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as worker:  # fmt: skip
        worker.stdout.close()
        worker.stdin.write(work)
        worker.stdin.close()
        worker.stdin = None
        assert worker.stderr.read() == b""
