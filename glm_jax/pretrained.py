"""Models on disk: a folder that `transformers` loads as GlmForCausalLM, or as
GlmForSequenceClassification when the head is scalar.

Tensors are named, transposed and joined as each weight's declaration says.
"""

import dataclasses
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import nnx

from glm_jax.config import GLMConfig
from glm_jax.configuration import parse
from glm_jax.errors import InputError
from glm_jax.model import GLM, Head
from glm_jax.tokenizer import Tokenizer
from glm_jax.weights import Disk

_ARCHITECTURES: dict[str, Head] = {
    "GlmForCausalLM": "lm",
    "GlmForSequenceClassification": "scalar",
}


def save_pretrained(model: GLM, path: str | Path, tokenizer: Tokenizer | None = None) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files, all or nothing.

    A model that was there is replaced; a folder of other things raises InputError.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not (path / "config.json").exists():
        raise InputError(f"{path}: holds other things than a model; name another folder")
    building = path.with_name(path.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    parts: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for param, disk, names, stacked in _declared(model):
        value = np.asarray(param[...])
        for name, piece in zip(names, value if stacked else [value], strict=True):
            parts[name][disk.part] = _to_disk(piece, disk)
    tensors = {name: np.concatenate([p[i] for i in sorted(p)]) for name, p in parts.items()}
    safetensors.numpy.save_file(tensors, building / "model.safetensors", {"format": "pt"})
    (building / "config.json").write_text(json.dumps(_config_json(model), indent=2) + "\n")
    if tokenizer is not None:
        tokenizer.save(building)
    shutil.rmtree(path, ignore_errors=True)
    os.replace(building, path)


def load_pretrained(path: str | Path, head: Head | None = None) -> GLM:
    """Reads a folder written by `save_pretrained`, under the head that it was saved with.

    `head`: the head that it must have, if it matters.

    Raises InputError when the folder is not a model, or tensors are missing, extra or misshapen.
    """
    path = Path(path)
    config, saved = _read_config(path / "config.json")
    if head not in (None, saved):
        raise InputError(f"{path}: has the head {saved!r}, but {head!r} is needed here")
    head = saved
    model = nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0), head))
    file = path / "model.safetensors"
    try:
        tensors = safetensors.numpy.load_file(file)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; expected the weights of a model") from None
    except safetensors.SafetensorError as error:
        raise InputError(f"{file}: not a safetensors file ({error})") from None

    rows: dict[str, dict[int, int]] = defaultdict(dict)
    shapes: dict[str, tuple[int, ...]] = {}
    for param, disk, names, stacked in _declared(model):
        shape = param.shape[1:] if stacked else param.shape
        for name in names:
            shapes[name] = _disk_shape(shape, disk)
            rows[name][disk.part] = shapes[name][0]
    for name, sizes in rows.items():
        shapes[name] = (sum(sizes.values()), *shapes[name][1:])
    _compare(file, shapes, {name: tensor.shape for name, tensor in tensors.items()})

    for param, disk, names, stacked in _declared(model):
        shape = param.shape[1:] if stacked else param.shape
        pieces = []
        for name in names:
            first = sum(size for part, size in rows[name].items() if part < disk.part)
            piece = tensors[name][first : first + rows[name][disk.part]]
            pieces.append(_from_disk(piece, shape, disk))
        value = np.stack(pieces) if stacked else pieces[0]
        param.set_value(jnp.asarray(value))
    return model


def _declared(model: GLM) -> Iterator[tuple[nnx.Param, Disk, list[str], bool]]:
    """Each weight, its place on disk, its tensors' names, and whether it stacks layers."""
    leaves = jax.tree_util.tree_leaves_with_path(
        model, is_leaf=lambda leaf: isinstance(leaf, nnx.Param)
    )
    for path, param in leaves:
        disk: Disk = param.get_metadata("disk")
        if path[0].name == "blocks":
            layers = range(model.config.num_hidden_layers)
            yield param, disk, [f"model.layers.{layer}.{disk.name}" for layer in layers], True
        else:
            yield param, disk, [disk.name], False


def _disk_shape(shape: tuple[int, ...], disk: Disk) -> tuple[int, ...]:
    if disk.inputs is None:
        return shape
    columns = (prod(shape[: disk.inputs]),) if disk.inputs else ()
    return (prod(shape[disk.inputs :]), *columns)


def _to_disk(value: np.ndarray, disk: Disk) -> np.ndarray:
    if not disk.inputs:
        return value.reshape(_disk_shape(value.shape, disk))
    return np.ascontiguousarray(value.reshape(_disk_shape(value.shape, disk)[::-1]).T)


def _from_disk(piece: np.ndarray, shape: tuple[int, ...], disk: Disk) -> np.ndarray:
    return (piece.T if disk.inputs else piece).reshape(shape)


def _compare(file: Path, expected: dict, found: dict) -> None:
    wrong = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    wrong += [f"unexpected {name}" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            wrong.append(f"{name} has shape {found[name]}, expected {expected[name]}")
    if wrong:
        raise InputError(f"{file}: does not fit its config.json: {'; '.join(wrong)}")


def _config_json(model: GLM) -> dict[str, Any]:
    config = model.config
    head = {kind: name for name, kind in _ARCHITECTURES.items()}[model.head_kind]
    scores = {"num_labels": 1} if model.head_kind == "scalar" else {}
    return {
        "architectures": [head],
        "model_type": "glm",
        "dtype": str(model.embedding[...].dtype),
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        **dataclasses.asdict(config),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            "partial_rotary_factor": config.partial_rotary_factor,
        },
        **scores,
    }


def _read_config(file: Path) -> tuple[GLMConfig, Head]:
    try:
        values = json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; expected a model's folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not JSON ({error})") from None
    names = values.get("architectures") if isinstance(values, dict) else None
    if not isinstance(names, list) or names not in [[name] for name in _ARCHITECTURES]:
        raise InputError(f"{file}: architectures is {names}, expected one of {[*_ARCHITECTURES]}")
    # transformers keeps the numbers of the rotary positions here alone
    rope = values.get("rope_parameters", {})
    if not isinstance(rope, dict):
        raise InputError(f"{file}: 'rope_parameters' should be an object, got {rope!r}")
    values |= rope
    known = [field.name for field in dataclasses.fields(GLMConfig)]
    missing = [name for name in known if name not in values]
    if missing:
        raise InputError(f"{file}: the key {missing[0]!r} is missing")
    config = parse(GLMConfig, {name: values[name] for name in known}, str(file))
    return config, _ARCHITECTURES[names[0]]
