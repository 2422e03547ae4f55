"""A model's config.json, in transformers' naming and in that of ChatGLM's remote code."""

import dataclasses
import os
from typing import Any, Literal

from etils import epath

from glm_jax.checkpoint.byte_ranges import ByteRanges
from glm_jax.checkpoint.strict_json import parse_json
from glm_jax.config import GLMConfig
from glm_jax.configuration import parse
from glm_jax.errors import InputError
from glm_jax.heads import Head

Naming = Literal["transformers", "chatglm"]

_MOST = 2**24
_SHIFT = "score_shift"
_CLASSES = {"glm": "Glm", "glm4": "Glm4", "glm4_moe": "Glm4Moe"}
_EXPERTS = (
    "n_routed_experts", "num_experts_per_tok", "n_shared_experts", "moe_intermediate_size",
    "first_k_dense_replace", "n_group", "topk_group", "norm_topk_prob", "routed_scaling_factor",
    "use_qk_norm",
)  # fmt: skip
_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps",
)  # fmt: skip
_FROM_CHATGLM = {
    "padded_vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "ffn_hidden_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "multi_query_group_num": "num_key_value_heads",
    "kv_channels": "head_dim",
    "seq_length": "max_position_embeddings",
    "layernorm_epsilon": "rms_norm_eps",
    "add_qkv_bias": "attention_bias",
}
# what the arithmetic of glm_jax takes for granted, and what a configuration without the key means
_CHATGLM_FIXED = {
    "rmsnorm": (True, True),
    "post_layer_norm": (True, True),
    "add_bias_linear": (False, False),
    "apply_residual_connection_post_layernorm": (False, False),
    "multi_query_attention": (True, False),
    "original_rope": (True, True),
    "tie_word_embeddings": (False, False),
    "quantization_bit": (0, 0),
    "pre_seq_len": (None, None),
}
_TRANSFORMERS_FIXED = {
    "hidden_act": ("silu", "silu"),
    "tie_word_embeddings": (False, False),
    "quantization_config": (None, None),
    "rope_scaling": (None, None),
}


def read_config(file: epath.Path) -> tuple[GLMConfig, Head, Naming]:
    """What config.json says: the model, its head (`lm` or `reward`) and the tensors' naming.

    Raises InputError when it is not a model's, or describes arithmetic that is not a GLM's.
    """
    try:
        source = ByteRanges(os.fspath(file))
    except ImportError as error:  # the package for that kind of storage
        raise InputError(f"{file}: {error}") from None
    except InputError:
        raise InputError(f"{file}: no such file; expected a model's folder") from None
    if source.size > _MOST:
        raise InputError(f"{file}: has {source.size} bytes, which is too long for a configuration")
    values = parse_json(source.read(0, source.size).tobytes(), str(file))
    if not isinstance(values, dict):
        raise InputError(f"{file}: expected an object, got {type(values).__name__}")
    if values.get("model_type") == "chatglm":
        found, head = _read_chatglm(values, file)
        return parse(GLMConfig, found, str(file)), head, "chatglm"
    found, head = _read_transformers(values, file)
    return parse(GLMConfig, found, str(file)), head, "transformers"


def config_json(config: GLMConfig, head: Head, naming: Naming, dtype: str) -> dict[str, Any]:
    """The content of config.json, such that `read_config` gives back `config` and `head`."""
    values = dataclasses.asdict(config)
    shift = values.pop(_SHIFT)
    scores = {} if head == "lm" else {"num_labels": 1}
    if head == "reward" and shift:
        scores[_SHIFT] = shift
    if naming == "chatglm":
        if config.model_type != "glm" or config.partial_rotary_factor != 0.5:
            raise InputError(
                f"naming 'chatglm' is for models of type glm that rotate half of each head; this "
                f"is {config.model_type}, {config.partial_rotary_factor}: use 'transformers'"
            )
        return {
            "architectures": [_chatglm_class(head)],
            "model_type": "chatglm",
            "torch_dtype": dtype,
            **{theirs: values[ours] for theirs, ours in _FROM_CHATGLM.items()},
            "rope_ratio": config.rope_theta / 10_000,
            **{key: needed for key, (needed, _) in _CHATGLM_FIXED.items()},
            "eos_token_id": _plain(config.eos_token_id),
            "pad_token_id": config.pad_token_id,
            **scores,
        }
    if config.model_type == "glm4_moe":
        values["num_nextn_predict_layers"] = 0  # those for speculative decoding are not kept
    else:
        values = {key: value for key, value in values.items() if key not in _EXPERTS}
    return {
        "architectures": [_transformers_class(config.model_type, head)],
        "dtype": dtype,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        **values,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_theta,
            "partial_rotary_factor": config.partial_rotary_factor,
        },
        **scores,
    }


def _read_transformers(values: dict[str, Any], file: epath.Path) -> tuple[dict[str, Any], Head]:
    heads: dict[str, tuple[str, Head]] = {
        _transformers_class(kind, head): (kind, head)
        for kind in _CLASSES for head in ("lm", "reward")
    }  # fmt: skip
    names = values.get("architectures")
    if not isinstance(names, list) or names not in [[name] for name in heads]:
        raise InputError(f"{file}: architectures is {names}, expected one of {[*heads]}")
    model_type, head = heads[names[0]]
    # transformers 5 keeps the numbers of the rotary positions here alone
    rope = values.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise InputError(f"{file}: 'rope_parameters' should be an object, got {rope!r}")
    values = values | rope
    _refuse_others(values, _TRANSFORMERS_FIXED | {"rope_type": ("default", "default")}, file)
    needed = (*_SIZES, *(_EXPERTS if model_type == "glm4_moe" else ()))
    _need(values, needed, file)
    found = {key: values[key] for key in needed} | {"model_type": model_type}
    # what transformers takes for granted
    if values.get("head_dim") is None and model_type != "glm4_moe":
        found["head_dim"] = 128
    elif values.get("head_dim") is None:
        found["head_dim"] = _ratio(values, file, "hidden_size", "num_attention_heads")
    found["attention_bias"] = model_type != "glm4_moe"
    optional = "head_dim", "attention_bias", "rope_theta", "partial_rotary_factor", _SHIFT
    found |= {key: values[key] for key in optional if values.get(key) is not None}
    return found | _ends(values), head


def _read_chatglm(values: dict[str, Any], file: epath.Path) -> tuple[dict[str, Any], Head]:
    if "inner_hidden_size" in values or "position_encoding_2d" in values:
        raise InputError(
            f"{file}: is ChatGLM-6B, the first, which is another architecture; expected ChatGLM2, "
            f"ChatGLM3, GLM-4 or later"
        )
    _refuse_others(values, _CHATGLM_FIXED, file)
    values = {"add_qkv_bias": False} | values
    _need(values, _FROM_CHATGLM, file)
    ratio = values.get("rope_ratio", 1)
    if not isinstance(ratio, int | float) or not 0 < ratio < 1e12:
        raise InputError(f"{file}: 'rope_ratio' should be a positive number, got {ratio!r:.40}")
    found = {ours: values[theirs] for theirs, ours in _FROM_CHATGLM.items()}
    names = values.get("architectures") or [None]
    head: Head = "reward" if names == [_chatglm_class("reward")] else "lm"
    found |= {"rope_theta": 10_000.0 * ratio, _SHIFT: values.get(_SHIFT, 0.0)}
    return found | _ends(values), head


def _need(values: dict[str, Any], keys: Any, file: epath.Path) -> None:
    for key in keys:
        if key not in values:
            raise InputError(f"{file}: the key {key!r} is missing")


def _refuse_others(values: dict[str, Any], fixed: dict[str, tuple], file: epath.Path) -> None:
    for key, (needed, absent) in fixed.items():
        found = values.get(key, absent)
        if found != needed and not (found is None and needed == absent):
            raise InputError(f"{file}: {key} is {found!r}; only {needed!r} is supported")


def _ends(values: dict[str, Any]) -> dict[str, Any]:
    eos, pad = values.get("eos_token_id"), values.get("pad_token_id")
    eos = [] if eos is None else eos if isinstance(eos, list) else [eos]
    return {"eos_token_id": eos, "pad_token_id": 0 if pad is None else pad}


def _ratio(values: dict[str, Any], file: epath.Path, top: str, bottom: str) -> int:
    try:
        return values[top] // values[bottom]
    except (TypeError, ZeroDivisionError):
        raise InputError(
            f"{file}: {top} and {bottom} should be positive integers, got {values[top]!r} and "
            f"{values[bottom]!r}"
        ) from None


def _plain(ids: tuple[int, ...]) -> int | list[int]:
    return ids[0] if len(ids) == 1 else list(ids)


def _transformers_class(model_type: str, head: Head) -> str:
    # transformers has no sequence classification for experts: such a folder is ours alone
    return _CLASSES[model_type] + ("ForCausalLM" if head == "lm" else "ForSequenceClassification")


def _chatglm_class(head: Head) -> str:
    return "ChatGLMForConditionalGeneration" if head == "lm" else "ChatGLMForSequenceClassification"
