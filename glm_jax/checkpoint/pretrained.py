"""Released checkpoints in, and checkpoints that `transformers` loads out.

Tensors are named, split, transposed and joined as each weight's declaration says.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from glm_jax.checkpoint.config_files import Naming, config_json, read_config
from glm_jax.checkpoint.fused_experts import separated
from glm_jax.checkpoint.loading import fill
from glm_jax.checkpoint.model_folder import replacing
from glm_jax.checkpoint.placement import Piece, Tensor, declared, matrices, matrix, tensors
from glm_jax.checkpoint.progress import byte_bar
from glm_jax.checkpoint.safetensors_files import reading_order, write_safetensors
from glm_jax.checkpoint.stored_tensor import StoredTensor
from glm_jax.checkpoint.tensor_files import stored_tensors
from glm_jax.config import GLMConfig
from glm_jax.errors import InputError
from glm_jax.heads import Head
from glm_jax.model import GLM
from glm_jax.processes import leads, together
from glm_jax.sharding import gathered, weight_sharding
from glm_jax.text.tokenizer import Tokenizer

_DTYPES = tuple(jnp.dtype(name) for name in ("float32", "bfloat16", "float16"))
_FREQUENCIES = re.compile(r"rotary(_pos)?_emb\.inv_freq$")
_LAYER = re.compile(r"^model\.layers\.(\d+)\.")
_SCORE_BIAS = "classifier_head.bias"
_SAID = 20  # tensors in a message
_INV_FREQ = "transformer.rotary_pos_emb.inv_freq"

# what transformers' classes do not know of a reward model
_CARD = """# A reward model

The score of a dialogue is what the head gives at its last token minus `score_shift` of config.json,
{score_shift!r}: with that taken off, the reference answers have the mean score 0. glm-rlhf takes it
off by itself. `AutoModelForSequenceClassification`, whose head has no bias, does not:

    score = model(**inputs).logits[:, 0] - model.config.score_shift
"""

log = logging.getLogger(__name__)


def architecture_of(path: str | os.PathLike[str]) -> GLMConfig:
    """Shape and arithmetic of the model in a folder, from its config.json alone."""
    return read_config(_folder(path) / "config.json")[0]


def load_pretrained(
    path: str | os.PathLike[str],
    head: Head | None = None,
    *,
    dtype: DTypeLike | None = "float32",
    mesh: Mesh | None = None,
) -> GLM:
    """Reads a released checkpoint, or a folder that `save_pretrained` wrote.

    Args:
      path: a folder, local or `gs://`, with config.json and safetensors or legacy .bin files, in
        transformers' naming or in that of ChatGLM's remote code (no code of it is run).
      head: `lm`, or for a checkpoint with a score `reward` (the default there) or `value`.
      dtype: of the weights: float32, bfloat16, float16; None: as they are stored.
      mesh: shards the weights by `glm_jax.sharding`; each process reads its own shards' rows.

    Raises InputError when the folder is no GLM, when its head is another, or when tensors are
    missing, extra or misshapen. Rotary frequencies and multi-token-prediction layers are ignored.
    """
    folder = _folder(path)
    if head is not None and head not in get_args(Head):
        raise InputError(f"head must be one of {', '.join(get_args(Head))}, got {head!r}")
    wanted = None if dtype is None else _dtype(dtype)
    config, saved, naming = read_config(folder / "config.json")
    if head is None:
        head = saved
    elif (head == "lm") != (saved == "lm"):
        raise InputError(
            f"{folder}: has the head {saved!r}, but {head!r} is needed here (glm_jax.with_head "
            f"puts a fresh head on a model)"
        )
    model = nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0), head))
    stored = separated(stored_tensors(folder))
    _set_aside(folder, model, stored)
    most = 3 * len(stored) + 100  # a tensor holds up to three weights; the rest is for the message
    if matrices(model) > most:
        raise InputError(
            f"{folder}: does not fit its config.json: {len(stored)} tensors cannot hold the "
            f"{matrices(model)} matrices of {config.num_hidden_layers} layers"
        )
    expected = tensors(model, naming)
    _compare(folder, expected, stored)

    params = declared(model)
    own = _stored_dtypes(expected, stored)
    dtypes = [
        own[leaf] if param.get_metadata("fixed") or wanted is None else wanted
        for leaf, param in enumerate(params)
    ]
    shardings = [weight_sharding(param, mesh) if mesh else None for param in params]
    total = sum(tensor.nbytes for name, tensor in stored.items() if name in expected)
    with byte_bar(f"loading {folder.name}", total) as progress:
        fill(model, expected, stored, shardings, dtypes, progress)
    return model


def save_pretrained(
    model: GLM,
    path: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    *,
    naming: Naming = "transformers",
) -> None:
    """Writes config.json, safetensors in shards of 5 GB and the tokenizer's files, all or nothing.

    `naming="transformers"` gives a folder for `AutoModelForCausalLM`, or with a score for
    `AutoModelForSequenceClassification`; "chatglm" the tensors and configuration of ChatGLM2,
    ChatGLM3 and GLM-4-9B as first released, whose code is to be laid beside them.

    A model that was there is replaced; without `tokenizer` the files of its own stay. A folder that
    holds other things raises InputError, and is left as it is. Of several processes all must call
    this; the first writes.
    """
    if naming not in get_args(Naming):
        raise InputError(f"naming must be one of {', '.join(get_args(Naming))}, got {naming!r}")
    dtype = str(model.embedding[...].dtype)
    values = config_json(model.config, model.head_kind, naming, dtype)
    shapes, read = _written(model, naming)
    if leads():
        with replacing(path) as folder:
            write_safetensors(folder, shapes, read)
            (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")
            if "score_shift" in values:
                (folder / "README.md").write_text(_CARD.format(**values))
            if tokenizer is not None:
                tokenizer.save(folder)
    else:
        for name in reading_order(shapes):
            read(name)  # its parts are gathered from all processes
    together()


def _folder(path: str | os.PathLike[str]) -> epath.Path:
    scheme, found, _ = os.fspath(path).partition("://")
    if found and scheme != "gs":
        raise InputError(f"{path}: expected a local folder or gs://")
    return epath.Path(path)


def _dtype(dtype: DTypeLike) -> np.dtype:
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found not in _DTYPES:
        known = ", ".join(str(known) for known in _DTYPES)
        raise InputError(f"dtype must be one of {known} or None, got {dtype!r}")
    return found


def _set_aside(folder: epath.Path, model: GLM, stored: dict[str, StoredTensor]) -> None:
    """Takes tensors out that are known to mean nothing here, and says so."""
    layers = model.config.num_hidden_layers

    def ignorable(name: str) -> bool:
        layer = _LAYER.match(name)
        prediction = model.config.n_routed_experts and layer and int(layer[1]) >= layers
        # the released class of scores carries the head of its language model along
        unused = model.head_kind != "lm" and name == "transformer.output_layer.weight"
        return bool(_FREQUENCIES.search(name) or prediction or unused)

    ignored = [name for name in stored if ignorable(name)]
    for name in ignored:
        del stored[name]
    if ignored:
        log.warning("%s: ignored %d tensors, such as %s", folder, len(ignored), ignored[0])
    bias = stored.pop(_SCORE_BIAS, None) if model.head_kind != "lm" else None
    if bias is not None and np.any(bias.read() != 0):
        raise InputError(f"{folder}: {_SCORE_BIAS} is not zero; scores have no bias here")


def _compare(
    folder: epath.Path, expected: dict[str, Tensor], stored: dict[str, StoredTensor]
) -> None:
    wrong = [f"missing {name}" for name in sorted(expected.keys() - stored.keys())]
    wrong += [f"unexpected {name}" for name in sorted(stored.keys() - expected.keys())]
    for name in sorted(expected.keys() & stored.keys()):
        if expected[name].shape != stored[name].shape:
            shapes = stored[name].shape, expected[name].shape
            wrong.append(f"{name} has shape {shapes[0]}, expected {shapes[1]}")
        elif stored[name].dtype.kind not in "fV":
            wrong.append(f"{name} is of {stored[name].dtype}, expected floating-point numbers")
    if wrong:
        if len(wrong) > _SAID:
            wrong = [*wrong[:_SAID], f"and {len(wrong) - _SAID} more"]
        raise InputError(f"{folder}: does not fit its config.json: {'; '.join(wrong)}")


def _stored_dtypes(
    expected: dict[str, Tensor], stored: dict[str, StoredTensor]
) -> dict[int, np.dtype]:
    """Of each weight: the widest of its tensors' dtypes."""
    found: dict[int, np.dtype] = {}
    for name, tensor in expected.items():
        for piece in tensor.pieces:
            dtype = stored[name].dtype
            known = found.setdefault(piece.leaf, dtype)
            if known != dtype:
                found[piece.leaf] = np.dtype(np.float32)
    return found


def _written(
    model: GLM, naming: Naming
) -> tuple[dict[str, jax.ShapeDtypeStruct], Callable[[str], np.ndarray]]:
    """The tensors of a model, and what makes each of them when its turn has come."""
    params, layout = declared(model), tensors(model, naming)
    dtype, made = model.embedding[...].dtype, {}
    if naming == "chatglm":
        made = _for_released_code(model)
    shapes = {
        name: jax.ShapeDtypeStruct(tensor.shape, params[tensor.pieces[0].leaf].dtype)
        for name, tensor in layout.items()
    }
    shapes |= {name: jax.ShapeDtypeStruct(value.shape, dtype) for name, value in made.items()}

    def read(name: str) -> np.ndarray:
        if name in made:
            return made[name].astype(dtype)
        rows = [_piece(params[piece.leaf], piece) for piece in layout[name].pieces]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    return shapes, read


def _for_released_code(model: GLM) -> dict[str, np.ndarray]:
    """What ChatGLM's own code looks for and `load_pretrained` ignores."""
    size = model.config.rotary_dim
    # to the base of ten thousand whatever the ratio, which that code multiplies in later
    found = {_INV_FREQ: 10_000.0 ** -(np.arange(0, size, 2, dtype=np.float32) / size)}
    return found if model.head_kind == "lm" else found | {_SCORE_BIAS: np.zeros(1, np.float32)}


def _piece(param: nnx.Param, piece: Piece) -> np.ndarray:
    form = matrix(param)
    value = gathered(param[piece.index] if piece.index else param[...])
    if form.vector:
        return value.reshape(form.rows)
    if not form.transposed:
        return value.reshape(form.rows, form.columns)
    return np.ascontiguousarray(value.reshape(form.columns, form.rows).T)
