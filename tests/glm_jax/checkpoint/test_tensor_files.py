"""The tensors of a folder: read by range, through an index that does not lie."""

import json
import os
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from etils import epath

from glm_jax.checkpoint import byte_ranges
from glm_jax.checkpoint.byte_ranges import ByteRanges
from glm_jax.checkpoint.stored_tensor import StoredTensor
from glm_jax.checkpoint.tensor_files import stored_tensors
from glm_jax.errors import InputError

RNG = np.random.default_rng(0)


def assert_same(stored, arrays):
    assert stored.keys() == arrays.keys()
    for name, array in arrays.items():
        read = stored[name].read()
        assert (read.shape, read.dtype) == (array.shape, array.dtype), name
        assert read.tobytes() == array.tobytes(), name
        assert read.flags.writeable


@pytest.mark.parametrize(
    "rows", [(2, 5), (0, 7), (5, 99), (-3, None), (None, -2), (4, 4), (5, 2), (9, 12)]
)
def test_rows_are_those_of_a_slice(tmp_path, rows):
    shapes = {"matrix": (7, 5), "cube": (3, 2, 4), "empty": (4, 0), "none": (0, 3), "scalar": ()}
    arrays = {name: RNG.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    stored, rows = stored_tensors(tmp_path), slice(*rows)
    with pytest.raises(IndexError):
        stored["scalar"].read(rows)
    for name in shapes.keys() - {"scalar"}:
        np.testing.assert_array_equal(stored[name].read(rows), arrays[name][rows])
        with pytest.raises(ValueError, match="one after the other"):
            stored[name].read(slice(0, 4, 2))


def test_only_what_is_asked_for_is_read(tmp_path):
    """Of a file of a terabyte, most of which was never written."""
    rows = 10**8
    tensor = {"dtype": "F32", "shape": [rows, 2500], "data_offsets": [0, rows * 10**4]}
    header = json.dumps({"w": tensor}).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.seek(5678 * 10**4, os.SEEK_CUR)
        file.write(np.arange(2500, dtype=np.float32).tobytes())
        file.truncate(8 + len(header) + rows * 10**4)
    tensor = stored_tensors(tmp_path)["w"]
    assert tensor.nbytes == 10**12
    tracemalloc.start()
    part = tensor.read(slice(5677, 5679))
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    np.testing.assert_array_equal(part, [np.zeros(2500), np.arange(2500)])


def test_threads_read_at_once_and_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(byte_ranges, "_LOCAL_PIECE", 1000)
    arrays = {str(n): RNG.normal(size=(300, 7)).astype(np.float32) for n in range(20)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    stored = stored_tensors(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        names = [*arrays] * 20
        for name, read in zip(names, pool.map(lambda n: stored[n].read(), names), strict=True):
            np.testing.assert_array_equal(read, arrays[name])


def test_a_file_is_open_while_its_tensors_are_in_use(tmp_path):
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"w": np.ones(3)}, file)
    opened = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    stored = stored_tensors(tmp_path)
    safetensors.numpy.save_file({"v": np.zeros(5)}, tmp_path / "new")
    os.replace(tmp_path / "new", file)
    np.testing.assert_array_equal(stored["w"].read(), np.ones(3))
    del stored
    if opened is not None:
        assert len(os.listdir("/proc/self/fd")) == opened
    assert stored_tensors(tmp_path)["v"].read().sum() == 0


@pytest.mark.parametrize("rows", [(0, 6), (2, 5), (4, 4)])
@pytest.mark.parametrize("columns", [(0, 7), (0, 3), (2, 5), (6, 7)])
def test_a_block_is_read_and_no_byte_beside_it(tmp_path, monkeypatch, rows, columns):
    matrix = np.arange(42, dtype=np.float32).reshape(6, 7)
    safetensors.numpy.save_file({"w": matrix}, tmp_path / "model.safetensors")
    stored, read = stored_tensors(tmp_path)["w"], []
    preadv = os.preadv

    def counted(*arguments):
        read.append(preadv(*arguments))
        return read[-1]

    monkeypatch.setattr(os, "preadv", counted)
    block = stored.read_block(rows, columns)
    np.testing.assert_array_equal(block, matrix[slice(*rows), slice(*columns)])
    assert sum(read) == block.nbytes


def test_a_file_that_has_become_shorter_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"v": np.ones(5), "w": np.ones(1000)}, file)
    stored = stored_tensors(tmp_path)
    os.truncate(file, file.stat().st_size - 1)
    np.testing.assert_array_equal(stored["v"].read(), np.ones(5))
    with pytest.raises(InputError, match=r"model\.safetensors: is too short"):
        stored["w"].read()


def test_memory_is_taken_after_the_size_was_checked(tmp_path):
    (tmp_path / "f").write_bytes(b"x" * 100)
    huge = StoredTensor(ByteRanges(str(tmp_path / "f")), 0, (2**40, 2), np.dtype("float32"))
    with pytest.raises(InputError, match="f: is too short"):
        huge.read()
    with pytest.raises(InputError, match="f: is too short"):
        huge.read(slice(10, 2**39))


@pytest.fixture
def sharded(tmp_path):
    """Two shards and their index, written by hand."""
    parts = {"one.safetensors": {"a": 1, "b": 2}, "two.safetensors": {"c": 3}}
    for name, values in parts.items():
        arrays = {key: np.full(3, value, np.float32) for key, value in values.items()}
        safetensors.numpy.save_file(arrays, tmp_path / name)
    places = {key: name for name, values in parts.items() for key in values}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": places}))
    return tmp_path


def test_shards_are_read_through_their_index(sharded, tmp_path_factory):
    # it comes before a single file, as in folders that hold the weights twice
    safetensors.numpy.save_file({"other": np.zeros(1)}, sharded / "model.safetensors")
    arrays = {key: np.full(3, n, np.float32) for key, n in [("a", 1), ("b", 2), ("c", 3)]}
    assert_same(stored_tensors(sharded), arrays)
    links = tmp_path_factory.mktemp("snapshot")  # a cache of downloads is a folder of links
    for file in sharded.iterdir():
        (links / file.name).symlink_to(file)
    assert_same(stored_tensors(links), arrays)


LYING = [
    ({"a": "two.safetensors"}, "a is in one.safetensors, but the index says two.safetensors"),
    ({"a": None}, "a is in one.safetensors, but the index says nothing of it"),
    ({"d": "two.safetensors"}, "d is in no shard, but the index says two.safetensors"),
    ({"d": "three.safetensors"}, "the shard three.safetensors is missing"),
    (
        {f"d{n}": "one.safetensors" for n in range(9)},
        "d4 is in no shard, but the index says one.safetensors; ... (9 in all)",
    ),
    ({"a": "../one.safetensors"}, "tensor a: expected a file of this folder, got '../one.safe"),
    ({"a": "/etc/passwd"}, "tensor a: expected a file of this folder, got '/etc/passwd'"),
    ({"a": ".."}, "tensor a: expected a file of this folder, got '..'"),
    ({"a": ""}, "tensor a: expected a file of this folder, got ''"),
    ({"a": "x\\one"}, "tensor a: expected a file of this folder, got 'x"),
    ({"a": "one\0"}, "tensor a: expected a file of this folder, got 'one"),
    ({"a": 5}, "tensor a: expected a file of this folder, got 5"),
    ({"\x1b[2J": "one.safetensors"}, "'\\x1b[2J' is not the name of a tensor"),
]


@pytest.mark.parametrize(("change", "message"), LYING)
def test_an_index_that_lies_is_refused(sharded, change, message):
    file = sharded / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    places = index["weight_map"] | change
    index["weight_map"] = {key: value for key, value in places.items() if value is not None}
    file.write_text(json.dumps(index))
    with pytest.raises(InputError) as error:
        stored_tensors(sharded)
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"weight_map": {"a": "one", "a": "two"}}', "not JSON (the key 'a' appears twice)"),
        ('{"weight_map": []}', "'weight_map' should be an object"),
        ('{"weight_map": {}}', "'weight_map' should be an object"),
        ("[]", "'weight_map' should be an object"),
        ("", "not JSON"),
    ],
)
def test_an_index_that_is_none_is_refused(sharded, text, message):
    file = sharded / "model.safetensors.index.json"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        stored_tensors(sharded)
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value)


def test_a_tensor_in_two_shards_is_refused(sharded):
    arrays = {"a": np.zeros(3, np.float32), "c": np.zeros(3, np.float32)}
    safetensors.numpy.save_file(arrays, sharded / "two.safetensors")
    message = "a is in one.safetensors and two.safetensors, but the index says one.safetensors"
    with pytest.raises(InputError, match=message):
        stored_tensors(sharded)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        message = rf"{folder}: .*expected model\.safetensors or pytorch_model\.bin, or shards"
        with pytest.raises(InputError, match=message):
            stored_tensors(folder)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")  # reading it would wait for ever
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        stored_tensors(tmp_path)
    (tmp_path / "model.safetensors.index.json").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=r"index\.json: no such file"):
        stored_tensors(tmp_path)


def test_a_package_that_is_missing_is_named():
    def fail(function, path):
        raise ImportError("Please install gcsfs to access Google Storage")

    with (
        epath.testing.mock_epath(isdir=fail),
        pytest.raises(InputError, match="gs://bucket/model: Please install gcsfs"),
    ):
        stored_tensors("gs://bucket/model")


class Slow:
    """A remote file, which gives less than one asks for and cannot read into a buffer."""

    def __init__(self, file):
        self.file, self.count = file, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def seek(self, offset):
        self.file.seek(offset)

    def read(self, size):
        data = self.file.read(min(size, 100))
        self.count += len(data)
        return data


def test_a_remote_folder_is_read_by_range(tmp_path):
    arrays = {"v": np.arange(10_000.0).reshape(500, 20), "w": np.ones((4, 3), np.float16)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    opened = []

    def local(function, path, *rest):
        assert os.fspath(path).startswith("gs://bucket/model")
        return function(os.fspath(path).replace("gs://bucket/model", str(tmp_path)), *rest)

    def slow(function, path, mode):
        opened.append(Slow(local(function, path, mode)))
        return opened[-1]

    with epath.testing.mock_epath(isdir=local, listdir=local, stat=local, open=slow):
        stored = stored_tensors("gs://bucket/model")
        assert sum(file.count for file in opened) < 500
        assert stored["v"].file == "gs://bucket/model/model.safetensors"
        assert_same(stored, arrays)
        opened.clear()
        np.testing.assert_array_equal(stored["v"].read(slice(7, 9)), arrays["v"][7:9])
        assert [file.count for file in opened] == [2 * 20 * 8] and opened[0].file.closed
        block = stored["v"].read_block((2, 5), (1, 3))
        np.testing.assert_array_equal(block, arrays["v"][2:5, 1:3])
        os.truncate(tmp_path / "model.safetensors", 1000)
        with pytest.raises(InputError, match=r"gs://bucket/model/model\.safetensors: is too short"):
            stored["v"].read()
