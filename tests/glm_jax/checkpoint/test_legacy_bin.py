"""The files of torch.save: their tensors, and nothing that a pickle could do."""

import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from glm_jax.checkpoint import legacy_bin, tensor_pickle
from glm_jax.checkpoint.legacy_bin import bin_tensors
from glm_jax.checkpoint.tensor_files import stored_tensors
from glm_jax.errors import InputError


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


ORDERED = b"ccollections\nOrderedDict\n)R"


def storage(kind="torch\nFloatStorage", key="0", size=4) -> bytes:
    return b"(" + text("storage") + f"c{kind}\n".encode() + text(key) + text("cpu") + number(size)


def tensor(first=0, shape=(4,), strides=(1,), **kind) -> bytes:
    """The instructions that make a tensor, as torch.save writes them."""
    view = number(first) + numbers(*shape) + numbers(*strides)
    call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage(**kind) + b"tQ" + view
    return call + b"\x89" + ORDERED + b"tR"


def state(value: bytes, name: str = "w") -> bytes:
    return b"\x80\x02}(" + text(name) + value + b"u."


FLOATS = np.array([1.5, -2, 3, 1e-9], np.float32)


@pytest.fixture
def write(tmp_path):
    """write(pickle, **changes of the zip): the file that holds one storage of four floats."""

    def write(data, compress=zipfile.ZIP_STORED, **files):
        entries = {"data.pkl": data, "byteorder": b"little", "data/0": FLOATS.tobytes()} | files
        file = tmp_path / "pytorch_model.bin"
        with zipfile.ZipFile(file, "w", compress) as archive:
            for name, content in entries.items():
                archive.writestr(f"archive/{name}", content)
        return str(file)

    return write


def refusal(file: str) -> str:
    with pytest.raises(InputError) as error:
        bin_tensors(file)
    assert str(error.value).startswith(f"{file}: ") and len(str(error.value)) < 500
    return str(error.value)


def test_a_tensor_is_read(write):
    stored = bin_tensors(write(state(tensor())))
    assert (stored["w"].shape, stored["w"].dtype) == ((4,), np.float32)
    np.testing.assert_array_equal(stored["w"].read(), FLOATS)
    part = bin_tensors(write(state(tensor(1, (1, 3, 1), (99, 1, -5)))))["w"]
    np.testing.assert_array_equal(part.read(), FLOATS[1:].reshape(1, 3, 1))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_what_pytorch_saves_is_read_equal(tmp_path, protocol):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    tensors = module.half().state_dict()
    for name in ("float64", "float32", "bfloat16", "int64", "int32", "int16", "int8", "uint8"):
        tensors[name] = torch.arange(-6, 6).reshape(3, 4).to(getattr(torch, name))
    tensors["bool"] = torch.tensor([True, False])
    tensors["view"] = tensors["float32"][1:]
    tensors["tied"] = tensors["float32"]
    tensors["scalar"], tensors["empty"] = torch.tensor(2.5), torch.zeros(4, 0, 2)
    tensors["parameter"] = torch.nn.Parameter(torch.ones(3, 1))
    tensors["column"] = torch.ones(3, 5)[:, 2:3].contiguous().T
    torch.save(tensors, tmp_path / "pytorch_model.bin", pickle_protocol=protocol)
    stored = stored_tensors(tmp_path)
    assert stored.keys() == tensors.keys()
    for name, expected in tensors.items():
        read = stored[name].read()
        assert (read.shape, f"torch.{read.dtype}") == (tuple(expected.shape), str(expected.dtype))
        np.testing.assert_array_equal(read.astype(float), expected.detach().double().numpy())
    assert stored["tied"] == stored["float32"]
    np.testing.assert_array_equal(
        stored["bfloat16"].read(slice(2, 3)), np.arange(2, 6).astype(ml_dtypes.bfloat16)[None]
    )


def test_shards_that_pytorch_saved_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    parts = {f"pytorch_model-0000{n}-of-00002.bin": {f"w{n}": torch.ones(n)} for n in (1, 2)}
    for file, tensors in parts.items():
        torch.save(tensors, tmp_path / file)
    places = {"w1": "pytorch_model-00001-of-00002.bin", "w2": "pytorch_model-00002-of-00002.bin"}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    stored = stored_tensors(tmp_path)
    assert {name: t.read().tolist() for name, t in stored.items()} == {"w1": [1], "w2": [1, 1]}
    index.write_text(json.dumps({"weight_map": {"w1": places["w2"], "w2": places["w1"]}}))
    with pytest.raises(InputError, match=r"w1 is in pytorch_model-00001-of-00002\.bin, but the i"):
        stored_tensors(tmp_path)
    safetensors.numpy.save_file({"v": np.zeros(1)}, tmp_path / "model.safetensors")
    assert stored_tensors(tmp_path).keys() == {"v"}


def test_the_format_before_the_zip_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    file = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.ones(1)}, file, _use_new_zipfile_serialization=False)
    assert "by PyTorch before 1.6" in (message := refusal(str(file)))
    assert "save it with safetensors.torch.save_file" in message


COMMAND = text("touch executed")
PAYLOADS = {
    "a call": (b"cos\nsystem\n" + COMMAND + b"\x85R", "'os.system'"),
    "eval": (b"cbuiltins\neval\n" + text("open('executed', 'w')") + b"\x85R", "'builtins.eval'"),
    "getattr": (b"cbuiltins\ngetattr\n(ctorch\nFloatStorage\n" + text("a") + b"tR", "getattr'"),
    "a chain": (b"\x8c\x05torch\x8c\x12nn.Module.__init__\x93", "'torch.nn.Module.__init__'"),
    "a submodule": (b"ctorch.nn.modules\nlinear.os.system\n", "'torch.nn.modules.linear.os.sys"),
    "INST": (b"(" + COMMAND + b"ios\nsystem\n", "the instruction INST 'os system'"),
    "OBJ": (b"(cos\nsystem\n" + COMMAND + b"o", "'os.system'"),
    "OBJ of a known name": (b"(ccollections\nOrderedDict\no", "the instruction OBJ"),
    "NEWOBJ": (b"ccollections\nOrderedDict\n)\x81", "the instruction NEWOBJ"),
    "NEWOBJ_EX": (b"ccollections\nOrderedDict\n)}\x92", "the instruction NEWOBJ_EX"),
    "EXT": (b"\x82\x01", "the instruction EXT1"),
    "a call of a type": (b"ctorch\nFloatStorage\n" + number(9) + b"\x85R", "no plain tensor"),
    "a call of a text": (text("os.system") + COMMAND + b"\x85R", "no plain tensor"),
    "items in a call": (b"ccollections\nOrderedDict\n" + numbers(1) + b"R", "no plain tensor"),
    "attributes of a tensor": (tensor() + b"}" + text("__class__") + b"Nsb", "sets attributes"),
    "of a function": (b"ctorch._utils\n_rebuild_tensor_v2\n}b", "sets attributes"),
    "of a dictionary": (b"}}b", "sets attributes"),
    "items of a tensor": (tensor() + text("a") + b"Ns", "what is no dictionary"),
    "a hook": (tensor()[: -len(ORDERED) - 2] + b"cos\nsystem\ntR", "'os.system'"),
    "an object for an id": (b"cposix\nsystem\n" + COMMAND + b"\x85RQ", "'posix.system'"),
    "an id in text": (b"Pos.system\n", "the instruction PERSID 'os.system'"),
    "an id of no storage": (text("module") + b"\x85Q", "no storage"),
    "a storage of no type": (tensor(kind="torch.storage\nUntypedStorage"), "UntypedStorage'"),
    "a newer tensor": (b"ctorch._utils\n_rebuild_tensor_v3\n", "'torch._utils._rebuild_tensor_v3'"),
    "a name that is no text": (b"))\x93", "a name that is no text"),
    "a key that is no name": (b"}" + number(1) + b"Ns", "keys that are no names"),
    "an empty stack": (b"R", "damaged"),
    "an unknown memory": (b"h\x07", "damaged"),
    "a mark that is missing": (b"tt", "damaged"),
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_a_pickle_that_would_do_something_is_refused(write, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    payload, message = PAYLOADS[kind]
    assert message in refusal(write(state(payload)))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_python_would_run_is_refused(write, tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"w": Evil()}, protocol)
    pickle.loads(data)
    (tmp_path / "executed").unlink()  # so it was there
    message = refusal(write(data))
    assert ("'posix.system'" if protocol else "the instruction") in message
    assert not (tmp_path / "executed").exists()


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


BOMBS = {
    "laughs": b")q\0" + 10**4 * b"h\0h\0\x86q\0",
    "laughs as a name": b")q\0" + 60 * b"h\0h\0\x86q\0" + b"h\0\x93",
    "laughs as a key": b")q\0" + 60 * b"h\0h\0\x86q\0" + b"}h\0Ns",
    "laughs as a shape": tensor()[:-3] + b")q\0" + 60 * b"h\0h\0\x86q\0" + ORDERED + b"tR",
    "a place in memory": b"Nr\xff\xff\xff\x7f\x85",
    "a long text": b"X\xff\xff\xff\xff",
    "longer": b"\x8d" + b"\xff" * 7 + b"\x7f",
    "a frame": b"\x95" + b"\xff" * 8,
    "depth": 10**4 * b"\x85",
    "length": 10**6 * b"N",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_does_not_go_off(write, monkeypatch, kind):
    monkeypatch.setattr(tensor_pickle, "_MAX_INSTRUCTIONS", 100_000)
    tracemalloc.start()
    refusal(write(state(BOMBS[kind])))
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (state(b"}" + text("w") + tensor() + b"s", "state_dict"), "'state_dict' is no tensor, but"),
        (state(number(3), "epoch"), "'epoch' is no tensor, but int"),
        (b"\x80\x02" + tensor() + b".", "should be a dictionary of tensors, got PickledTensor"),
        (b"\x80\x02}", "its pickle is refused: pickle exhausted"),
        (b"", "its pickle is refused: pickle exhausted"),
        (state(tensor(), "\x1b[2J"), "'\\x1b[2J' is not the name of a tensor"),
        (state(tensor(shape=(2, 2), strides=(1, 2))), "tensor w: not contiguous"),
        (state(tensor(shape=(4, 4), strides=(0, 1))), "tensor w: not contiguous"),
        (state(tensor(shape=(2,), strides=(2,))), "tensor w: not contiguous"),
        (state(tensor(shape=(4,), strides=(1, 1))), "tensor w: its shape is none"),
        (state(tensor(shape=(-4,))), "tensor w: its shape is none"),
        (state(tensor(shape=(2**31 - 1,) * 3 + (0,), strides=(0,) * 4)), "w: its shape is none"),
        (state(tensor(1)), "tensor w: lies outside its storage"),
        (state(tensor(-1)), "tensor w: lies outside its storage"),
        (state(tensor(shape=(5,))), "tensor w: lies outside its storage"),
        (state(tensor(size=5)), "tensor w: its storage is not as long as it says"),
        (state(tensor(kind="torch\nDoubleStorage")), "w: its storage is not as long as it says"),
        (state(tensor(key="../data.pkl")), "tensor w: the zip has no data/'../data.pkl'"),
    ],
)
def test_a_pickle_that_lies_is_refused(write, data, message):
    assert message in refusal(write(data))


def test_a_zip_that_lies_is_refused(write, tmp_path, monkeypatch):
    good = state(tensor())
    assert "'archive/data.pkl' in it is compressed" in refusal(write(good, zipfile.ZIP_DEFLATED))
    assert "not little-endian" in refusal(write(good, byteorder=b"big"))
    assert "is too long to be read" in refusal(write(good + bytes(2**26)))
    file = str(tmp_path / "other.bin")
    for names, message in [
        (["a/data.pkl", "b/data.pkl"], "has no NAME/data.pkl, or several"),
        (["data.pkl", "a/b/data.pkl"], "has no NAME/data.pkl, or several"),
        (["a/data.pkl", "a/data.pkm"], "two files of one name"),
    ]:
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, good)
        Path(file).write_bytes(Path(file).read_bytes().replace(b"pkm", b"pkl"))
        assert message in refusal(file)
    whole = bytearray(Path(write(good)).read_bytes())
    whole[whole.index(b"PK\1\2") + 8] |= 1  # says that it is encrypted
    Path(file).write_bytes(whole)
    assert "'archive/data.pkl' in it is compressed" in refusal(file)
    monkeypatch.setattr(legacy_bin, "_MAX_READ", 99)
    assert "its list of files is too long" in refusal(write(good))


def test_a_damaged_file_is_refused(write):
    """Cut off anywhere, or with a few bytes changed: an InputError, or tensors within the file."""
    file = write(state(tensor()))
    whole = Path(file).read_bytes()
    for size in range(0, len(whole), 7):
        Path(file).write_bytes(whole[:size])
        refusal(file)
    for seed in range(400):
        rng, data = np.random.default_rng(seed), bytearray(whole)
        for where in rng.integers(0, len(whole), rng.integers(1, 4)):
            data[where] = rng.integers(0, 256)
        Path(file).write_bytes(data)
        try:
            stored = bin_tensors(file)
        except InputError:
            continue
        assert all(tensor.read().size <= 4 for tensor in stored.values())


def test_pytorch_is_not_imported(write):
    file = write(state(tensor()))
    script = (
        "import sys; from glm_jax.checkpoint.legacy_bin import bin_tensors;"
        "print(*bin_tensors(sys.argv[1]));"
        "assert not {'torch', 'jax', 'safetensors'} & sys.modules.keys()"
    )
    command = [sys.executable, "-c", script, file]
    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout == "w\n"
