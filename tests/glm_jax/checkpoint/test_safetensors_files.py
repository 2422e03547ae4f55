"""Files of safetensors: what the library reads and writes, and no more."""

import json
import os
import struct
import weakref
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from glm_jax.checkpoint.safetensors_files import safetensors_tensors, write_safetensors
from glm_jax.checkpoint.tensor_files import stored_tensors
from glm_jax.errors import InputError

RNG = np.random.default_rng(0)
TENSORS = {
    "model.a.weight": RNG.normal(size=(7, 5)).astype(np.float32),
    "model.b.weight": RNG.normal(size=(3, 2, 4)).astype(np.float16),
    "model.c.weight": RNG.normal(size=(6, 3)).astype(ml_dtypes.bfloat16),
    "model.steps": np.array(2**40),
    "model.scale": np.array(0.1, ml_dtypes.bfloat16),
    "model.none": np.zeros((0, 3), np.float32),
    "model.mask": np.array([True, False, True]),
}


def assert_same(stored, arrays):
    assert stored.keys() == arrays.keys()
    for name, array in arrays.items():
        read = stored[name].read()
        assert (read.shape, read.dtype) == (array.shape, array.dtype), name
        assert read.tobytes() == array.tobytes(), name
        assert read.flags.writeable


def write(file: Path, header: object, data: bytes = b"", length: int | None = None) -> str:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return str(file)


def entry(shape=(1,), offsets=(0, 4), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_the_library_writes_is_read_equal(tmp_path):
    safetensors.numpy.save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    assert_same(stored_tensors(tmp_path), TENSORS)
    assert stored_tensors(str(tmp_path))["model.steps"].file == str(tmp_path / "model.safetensors")


def test_what_the_library_writes_from_pytorch_is_read_equal(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    dtypes = {"bfloat16": torch.int16, "float16": torch.int16, "float32": torch.int32}
    dtypes |= {"float64": torch.int64, "int64": torch.int64, "bool": torch.uint8}
    tensors = {
        f"{name}.{len(shape)}": torch.randn(shape).to(getattr(torch, name))
        for name in dtypes
        for shape in [(), (0, 4), (5, 3)]
    }
    save_file(tensors, tmp_path / "model.safetensors")
    stored = stored_tensors(tmp_path)
    assert stored.keys() == tensors.keys()
    for key, tensor in tensors.items():
        name = key.split(".")[0]
        read = stored[key].read()
        assert (read.shape, str(read.dtype)) == (tuple(tensor.shape), name)
        bits = tensor.view(dtypes[name]).numpy()
        np.testing.assert_array_equal(read.view(bits.dtype), bits)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": entry((1,), (0, 8))}, b"12345678", "tensor w: 4 bytes in its shape, 8 in the file"),
        ({"w": entry((2,), (0, 8))}, b"1234", "tensor w: ends at byte"),
        ({"w": entry()}, b"12345", "has 74 bytes, but its tensors end at byte 73"),
        ({"w": entry((1,), (4, 0))}, b"1234", "tensor w: 'data_offsets' should be"),
        ({"w": entry((1,), (0, 4, 8))}, b"1234", "tensor w: 'data_offsets' should be"),
        ({"w": entry((1,), (0.0, 4))}, b"1234", "tensor w: 'data_offsets' should be"),
        ({"w": entry((1,), (4, 8))}, b"12345678", "tensor w: leaves a gap before it"),
        ({"v": entry(), "w": entry()}, b"1234", "tensor w: overlaps another"),
        ({"v": entry((2,), (0, 8)), "w": entry((1,), (4, 8))}, b"x" * 8, "w: overlaps another"),
        ({"w": entry((-1, -1))}, b"1234", "tensor w: 'shape' should list"),
        ({"w": entry((True,))}, b"1234", "tensor w: 'shape' should list"),
        ({"w": entry((1.0,))}, b"1234", "tensor w: 'shape' should list"),
        ({"w": entry((1,) * 33)}, b"1234", "tensor w: 'shape' should list"),
        ({"w": entry((0, 2**62, 2**62), (0, 0))}, b"", "tensor w: 'shape' should list"),
        ({"w": entry((1,), (0, 1), "F8_E4M3")}, b"1", "tensor w: the dtype is 'F8_E4M3', expected"),
        ({"w": entry((1,), (0, 4), [])}, b"1234", "tensor w: the dtype is []"),
        ({"w": [1]}, b"", "tensor w: should have 'dtype', 'shape' and 'data_offsets'"),
        ({"w": {"dtype": "F32", "shape": [0]}}, b"", "tensor w: should have 'dtype'"),
        ({"w\n": entry()}, b"1234", "'w\\n' is not the name of a tensor"),
        ({"\ud800": entry()}, b"1234", "the header: not JSON"),
        ({"__metadata__": {"format": 1}}, b"", "'__metadata__' should be an object of strings"),
        (b'{"w": 1, "w": 2}', b"", "the header: not JSON (the key 'w' appears twice)"),
        (b'{"__metadata__": NaN}', b"", "the header: not JSON (NaN is no number)"),
        (b'{"w": {"dtype": "F32", "shape": [-0], "data_offsets": [0, 0]}}', b"", "'shape' should"),
        (b"[" * 99_999, b"", "the header: not JSON (nested too deeply)"),
        (b"9" * 5000, b"", "the header: not JSON"),
        (b"\xff\xff", b"", "the header: not JSON"),
        (b"[]", b"", "the header should be an object"),
        (b"{", b"", "not a safetensors file"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header, data, message):
    file = write(tmp_path / "model.safetensors", header, data)
    with pytest.raises(InputError) as error:
        safetensors_tensors(file)
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value)


@pytest.mark.parametrize("length", [0, 1, 100, 10**8 + 1, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_refused(tmp_path, length):
    file = write(tmp_path / "model.safetensors", {"w": entry()}, b"", length)
    with pytest.raises(InputError, match="not a safetensors file, or cut off within its header"):
        safetensors_tensors(file)
    for size in (0, 7, 8, 20):
        os.truncate(file, size)
        with pytest.raises(InputError, match="not a safetensors file, or cut off"):
            safetensors_tensors(file)


def test_what_the_library_refuses_is_refused(tmp_path):
    """Hundreds of damaged headers: an InputError, or what the library reads."""
    arrays = {"a": np.arange(4.0), "b.weight": np.ones((2, 3), np.int32), "c": np.zeros((0, 1))}
    whole = safetensors.numpy.save(arrays, {"format": "pt", "made by": "the library"})
    end = 8 + int.from_bytes(whole[:8], "little")
    file, refused, agreed = tmp_path / "model.safetensors", 0, 0
    for seed in range(400):
        rng, header = np.random.default_rng(seed), bytearray(whole[8:end])
        for _ in range(rng.integers(1, 3)):
            where, byte = rng.integers(0, len(header)), rng.choice([*b'01234-,:.[]{}"eF\\ \0\xff'])
            match rng.integers(0, 4):
                case 0:
                    header[where] ^= 1 << rng.integers(0, 8)
                case 1:
                    header[where] = byte
                case 2:
                    header.insert(where, byte)
                case 3:
                    del header[where : where + rng.integers(1, 4)]
        length = len(header) if seed % 4 else rng.integers(0, end)
        data = struct.pack("<Q", length) + header + whole[end:]
        file.write_bytes(data)
        try:
            ours = {name: tensor.read() for name, tensor in safetensors_tensors(str(file)).items()}
        except InputError as error:
            assert str(error).startswith(f"{file}: ") and len(str(error)) < 500
            refused += 1
            continue
        theirs = safetensors.numpy.load_file(file)
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert (ours[name].shape, ours[name].dtype) == (array.shape, array.dtype)
            assert ours[name].tobytes() == array.tobytes()
        agreed += 1
    assert refused > 300 and agreed > 15


def declared(arrays):
    return {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in arrays.items()}


def test_what_is_written_the_library_reads(tmp_path):
    write_safetensors(tmp_path, declared(TENSORS), TENSORS.__getitem__)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert_same(stored_tensors(tmp_path), TENSORS)
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}
        for name, array in TENSORS.items():
            assert file.get_tensor(name).tobytes() == array.tobytes()
    for tensor in stored_tensors(tmp_path).values():
        assert tensor.offset % tensor.dtype.itemsize == 0


def test_written_shards_are_those_of_transformers(tmp_path):
    torch = pytest.importorskip("torch")
    from huggingface_hub import split_torch_state_dict_into_shards

    shapes = [(10, 10), (4, 25), (150,), (1,), (99, 1), (101,), (3, 3)]
    arrays = {f"w{n}": RNG.normal(size=shape).astype("f4") for n, shape in enumerate(shapes)}
    write_safetensors(tmp_path, declared(arrays), arrays.__getitem__, shard_bytes=800)
    split = split_torch_state_dict_into_shards(
        {name: torch.from_numpy(array) for name, array in arrays.items()}, max_shard_size=800
    )
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text()) == {
        "metadata": {"total_size": sum(array.nbytes for array in arrays.values())},
        "weight_map": split.tensor_to_filename,
    }
    assert len({*split.tensor_to_filename.values()}) == 4
    assert_same(stored_tensors(tmp_path), arrays)


def test_one_array_is_in_memory_at_a_time(tmp_path):
    """Also of those that are not in row-major order."""
    made = []

    def read(name):
        assert not made or made[-1]() is None
        array = np.full((4, 3), int(name), np.float32, order="F")
        made.append(weakref.ref(array))
        return array

    shapes = {str(n): jax.ShapeDtypeStruct((4, 3), np.float32) for n in range(10)}
    write_safetensors(tmp_path, shapes, read, shard_bytes=100)
    assert (tmp_path / "model-00005-of-00005.safetensors").exists()
    for name, tensor in stored_tensors(tmp_path).items():
        np.testing.assert_array_equal(tensor.read(), np.full((4, 3), int(name), np.float32))


def test_a_copy_of_a_checkpoint_is_equal(tmp_path):
    safetensors.numpy.save_file(TENSORS, tmp_path / "model.safetensors")
    stored = stored_tensors(tmp_path)
    (tmp_path / "copy").mkdir()
    write_safetensors(tmp_path / "copy", stored, lambda name: stored[name].read(), shard_bytes=9)
    assert_same(stored_tensors(tmp_path / "copy"), TENSORS)


@pytest.mark.parametrize("array", [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float64)])
def test_an_array_other_than_declared_is_refused(tmp_path, array):
    with pytest.raises(ValueError, match="but was declared as"):
        write_safetensors(
            tmp_path, {"w": jax.ShapeDtypeStruct((2, 3), np.float32)}, lambda name: array
        )


def test_transformers_loads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GlmConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
    )
    model = transformers.GlmForCausalLM(config).to(torch.bfloat16)
    bits = {name: w.view(torch.int16).numpy() for name, w in model.state_dict().items()}
    arrays = {name: array.view(ml_dtypes.bfloat16) for name, array in bits.items()}
    config.save_pretrained(tmp_path)
    write_safetensors(tmp_path, declared(arrays), arrays.__getitem__, shard_bytes=3000)
    again, notes = transformers.GlmForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(notes.values())
    for name, weight in again.state_dict().items():
        np.testing.assert_array_equal(weight.view(torch.int16).numpy(), bits[name])
