"""Files of pairs: every kind of file, every way to be wrong, cut into parts."""

import gzip
import json
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from glm_jax.data import rows
from glm_jax.data.check import check, convert
from glm_jax.data.records import Pair
from glm_jax.data.sources import open_pairs, write_pairs
from glm_jax.errors import InputError

ASK = [{"role": "user", "content": "你好 <|user|>\n"}]
PAIRS = [
    Pair(id="a", prompt=ASK, chosen="x", rejected="y", category="qa", margin=0.5),
    Pair(id="b", prompt=ASK * 2, chosen="", rejected="y", tie=True, task={"ask": [1, None]}),
    Pair(
        id="c",
        prompt=ASK,
        chosen="x",
        rejected="y",
        tie=True,
        margin=-1.5,
        strength=2.0,
        weight=0.25,
        category="qa",
        language="zh",
        annotator="7",
        milliseconds=0.0,
        votes={"chosen": 2, "rejected": 0, "tie": 1},
        prompt_id="p",
        chosen_id="1",
        rejected_id="2",
        task={"ask": "你"},
    ),
]
assert None not in vars(PAIRS[-1]).values()
GOOD = json.dumps({"prompt": ASK, "chosen": "x", "rejected": "y"})
SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ""]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_holds_the_same_pairs(tmp_path, suffix):
    path = tmp_path / "new" / f"pairs{suffix}"
    assert write_pairs(path, iter(PAIRS)) == 3
    file = open_pairs(path)
    assert list(file) == list(file) == list(pickle.loads(pickle.dumps(file))) == PAIRS
    assert file.layout == "glm-rlhf" and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_written_unless_all_of_it_is(tmp_path, suffix):
    path = tmp_path / f"pairs{suffix}"
    if suffix:
        path.write_bytes(b"what was there")

    def broken():
        yield from PAIRS
        raise InputError("the fourth pair")

    with pytest.raises(InputError, match="the fourth pair"):
        write_pairs(path, broken())
    assert list(tmp_path.iterdir()) == ([path] if suffix else [])
    assert not suffix or path.read_bytes() == b"what was there"


def test_an_array_is_read_as_its_elements(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "_BLOCK", 7)
    path = tmp_path / "pairs.json"
    path.write_text(
        "\ufeff \n" + json.dumps([json.loads(GOOD)] * 3 + [5, {"id": 5}], indent=2) + "\n"
    )
    found = list(rows.rows(path))
    assert [rows.parse(raw) for _, raw in found[:3]] == [json.loads(GOOD)] * 3
    assert [number for number, _ in found] == [1, 2, 3, 4, 5]
    assert rows.parse(found[4][1]) == {"id": 5}
    for text in ("[1 2]", "[{}", "[{},", "[] []"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"pairs\.json.*(no whole|behind the) array"):
            list(rows.rows(path))


def test_a_folder_of_datasets_is_read_without_it(tmp_path):
    table = pyarrow.Table.from_pylist([json.loads(GOOD) | {"id": i} for i in range(5)])
    for i, part in enumerate((table[:3], table[3:])):
        with pyarrow.ipc.new_stream(tmp_path / f"data-{i}.arrow", table.schema) as file:
            file.write_table(part)
    state = {"_data_files": [{"filename": f"data-{i}.arrow"} for i in range(2)]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert [pair.id for pair in open_pairs(tmp_path)] == ["0", "1", "2", "3", "4"]
    (tmp_path / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{}]}))
    with pytest.raises(InputError, match="flatten_indices"):
        open_pairs(tmp_path)
    (tmp_path / "state.json").unlink()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match=r"name one of its splits: .*/train, .*/test"):
        open_pairs(tmp_path)


def test_splits_and_formats_of_tensorflow_datasets(tmp_path):
    path = tmp_path / "pairs"
    write_pairs(path, PAIRS)
    assert list(open_pairs(path / "train")) == PAIRS
    with pytest.raises(InputError, match=r"no such split; there are .*pairs/train"):
        open_pairs(path / "test")
    with pytest.raises(InputError, match="is there already"):
        write_pairs(path, PAIRS)
    info = path / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(InputError, match="tfds build pairs --file_format=array_record"):
        open_pairs(path)


def test_a_file_may_lie_beside_the_description_of_a_data_set(tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"dpo": {"file_name": "dpo.jsonl"}}')
    (tmp_path / "dpo.jsonl").write_text(GOOD)
    assert len(list(open_pairs(tmp_path / "dpo.jsonl"))) == 1
    with pytest.raises(InputError, match=r"dpo2\.jsonl: no such file"):
        open_pairs(tmp_path / "dpo2.jsonl")
    with pytest.raises(InputError, match="a directory, but none of"):
        open_pairs(tmp_path)


def test_parts_have_the_ids_and_lines_of_the_whole(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [GOOD if i % 3 else "" for i in range(50)]
    lines[41] = "{"
    path.write_text("\n".join(lines) + "\n")
    file = open_pairs(path)
    whole = list(file.judged())[:-1]
    for n in (1, 2, 7, 200):
        parts = file.parts(n)
        assert len(parts) == n if n < 50 else len(parts) <= 50
        found = [judged for part in parts for judged in part.judged()]
        assert [(number, str(pairs)) for number, pairs in found[:-1]] == [
            (number, str(pairs)) for number, pairs in whole
        ]
        with pytest.raises(InputError, match=r"pairs\.jsonl:42: not JSON"):
            [list(part) for part in parts]
    compressed = tmp_path / "pairs.jsonl.gz"
    compressed.write_bytes(gzip.compress(GOOD.encode()))
    assert open_pairs(compressed).parts(4) == [open_pairs(compressed)]


def test_names_and_places_of_fields(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n" + json.dumps(json.loads(GOOD) | {"set": 3, "lang": "zh", "tongue": "en"}))
    (pair,) = open_pairs(path, category="set")
    assert (pair.id, pair.category, pair.language) == ("2", "3", "zh")
    path.write_text(path.read_text().replace('"set"', '"language": null, "set"'))
    assert [pair.language for pair in open_pairs(path)] == ["zh"]
    (pair,) = open_pairs(path, language="tongue")
    assert (pair.category, pair.language) == (None, "en")
    with pytest.raises(
        InputError, match=r"pairs\.jsonl:2: field 'kind', which should hold the cat"
    ):
        list(open_pairs(path, category="kind"))


def huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(GOOD.encode() + b'\n{"prompt": "')
        for _ in range(50):
            file.write(b"x" * 2**20)
        file.write(b'"}\n' + GOOD.encode())


def without_columns(path: Path) -> None:
    parquet.write_table(pyarrow.table({"text": ["a"]}), path)


OTHER = json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"})
UNKNOWN = ":1: unknown layout: it has the fields text; known are glm-rlhf, trl"


def described(name: str, text: str) -> Callable[[Path], None]:
    return lambda path: (path.mkdir(), (path / name).write_text(text))


MIXED = ":2: mixed layouts: a row of trl-standard in a file that began as glm-rlhf"
BAD = {
    "malformed.jsonl": (f'{GOOD}\n{{"prompt": \n', ":2: not JSON: EOF while parsing"),
    "type.jsonl": (f'{GOOD}\n{GOOD.replace(chr(34) + "x" + chr(34), "5")}', ":2: field 'chosen': "),
    "unknown.jsonl": ('{"text": "a"}', UNKNOWN),
    "mixed.jsonl": (f"{GOOD}\n{OTHER}", MIXED),
    "latin.jsonl": (f"{GOOD}\n".encode() + b'{"prompt": "\xe9"}', ":2: not UTF-8: byte 13"),
    "surrogate.jsonl": (f'{GOOD}\n{{"prompt": "\\ud800"}}', ":2: not JSON"),
    "huge.jsonl": (huge, ":2: a line of more than 16,777,216 bytes"),
    "empty.jsonl": ("", ": no records"),
    "blank.jsonl": ("\n \n", ": no records"),
    "columns.parquet": (without_columns, UNKNOWN),
    "text.parquet": ("not Parquet", ": cannot be read"),
    "folder": (Path.mkdir, ": cannot be read: a directory, but none of"),
    "cut.jsonl.gz": (gzip.compress(GOOD.encode() * 9)[:-9], ":1: cannot be read: Compressed"),
    "plain.jsonl.gz": (GOOD, ": cannot be read: Not a gzipped file"),
    "plain.jsonl.zst": (GOOD, ": cannot be read: ZSTD"),
    "surrogate.json": (f'[{GOOD}, {{"prompt": "\\ud800"}}]', ":2: not JSON"),
    "nan.json": (f"[{GOOD}, NaN]", ":2: not JSON"),
    "latin.json": (f"[{GOOD},".encode() + b'{"prompt": "\xe9"}]', ":2: not UTF-8: byte 13"),
    "deep.json": (f"[{GOOD}, " + "[" * 9999 + "]" * 10000, ":2: .* nested too deeply"),
    "state": (described("state.json", "{}"), ": cannot be read: state.json: no list '_data_files'"),
    "gone": (
        described("state.json", '{"_data_files": [{"filename": "no.arrow"}]}'),
        ": cannot be read: .*no.arrow",
    ),
    "dict": (described("dataset_dict.json", "{}"), ": .*dataset_dict.json: no list 'splits'"),
    "other": (described("dataset_info.json", "[]"), ": .*: a directory, but none of"),
    "list.jsonl": (f"{GOOD}\n[1]", ":2: expected a JSON object, got list"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line_and_nothing_is_written(tmp_path, name):
    content, message = BAD[name]
    path, output = tmp_path / name, tmp_path / "out.jsonl"
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"{name}{message}") as error:
        convert(path, output)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == [path]


def test_truncated_zst_is_an_error(tmp_path):
    path = tmp_path / "pairs.jsonl.zst"
    write_pairs(path, PAIRS * 9)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"jsonl\.zst.*: cannot be read: Truncated"):
        list(open_pairs(path))


def test_a_huge_line_is_never_in_memory_as_a_whole(tmp_path):
    huge(tmp_path / "huge.jsonl")
    tracemalloc.start()
    found = check(tmp_path / "huge.jsonl")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (found.rows, found.pairs, found.wrong) == (3, 2, 1) and peak < 2.5 * rows.MAX_ROW_BYTES


def test_check_lists_some_and_counts_all(tmp_path, monkeypatch):
    monkeypatch.setattr("glm_jax.data.check.PART_BYTES", 100)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0})
    path, done = tmp_path / "pairs.jsonl", []
    write_pairs(path, PAIRS * 3)
    path.write_text("{\n" + path.read_text().replace("{", "[", 4))
    found = check(path, max_errors=2, told=lambda *parts: done.append(parts))
    assert done[-1][0] == done[-1][1] == len(done) > 3
    assert (found.layout, found.rows, found.pairs, found.wrong) == ("glm-rlhf", 10, 7, 3)
    assert [error.split(": ")[0] for error in found.errors] == [f"{path}:1", f"{path}:2"]
    assert found.groups == {("qa", "zh"): 3, ("qa", None): 2, (None, None): 2}
    assert (found.fields["margin"], found.fields["tie"], found.fields["votes"]) == (5, 5, 3)


def test_check_with_processes_finds_the_same(tmp_path, monkeypatch):
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, PAIRS * 5)
    one = check(path)
    monkeypatch.setattr("glm_jax.data.check.PART_BYTES", 1000)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    assert check(path) == one
