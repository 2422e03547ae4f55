"""The program that a run would compile, from its configuration alone: shapes in place of arrays."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from glm_jax.attention import check_platform
from glm_jax.checkpoint.pretrained import architecture_of
from glm_jax.config import GLMConfig
from glm_jax.errors import InputError
from glm_jax.heads import Head
from glm_jax.model import GLM
from glm_jax.presets import PRESETS, parameters
from glm_jax.sharding import placed
from glm_jax.train import dpo, reward, sft
from glm_jax.train.dpo import DPOBatch, DPOConfig
from glm_jax.train.optimizer import optimizer
from glm_jax.train.ppo.config import PPOConfig, check_room
from glm_jax.train.ppo.iteration import init, ppo_step
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.reward import PairBatch, RewardConfig
from glm_jax.train.scoring import in_dtype
from glm_jax.train.sft import SFTBatch, SFTConfig
from glm_jax.train.update import TrainState, start

Config = PPOConfig | SFTConfig | RewardConfig | DPOConfig


class Program(NamedTuple):
    """A run's step and what it is given; `trace(mesh)` is called on the mesh."""

    models: tuple[GLMConfig, ...]
    rows: dict[str, int]
    answer: int  # tokens of the longest; 0 where nothing is generated
    token_bytes: float  # that a chip reads for each of them: weights and cache
    every: int  # steps between checkpoints
    trace: Callable[[Mesh], tuple[Any, dict[str, Any]]]
    """(the traced step, its arguments by kind: parameters, frozen, optimiser)"""


def program(config: Config) -> Program:
    """What `run(config)` would compile. Raises InputError where a model is not known."""
    kinds = {PPOConfig: _ppo, SFTConfig: _sft, RewardConfig: _reward, DPOConfig: _dpo}
    return kinds[type(config)](config)


def architecture(path: str) -> GLMConfig:
    """That of a model's folder; of a folder that is not here yet, by the released model whose name
    its own begins with: `models/chatglm3-6b-sft`."""
    if Path(path).exists():
        return architecture_of(path)
    known = [name for name in PRESETS if Path(path).name.startswith(name)]
    if not known:
        raise InputError(
            f"{path}: no such folder, and its name does not begin with that of a released model: "
            f"{', '.join(PRESETS)}"
        )
    return PRESETS[max(known, key=len)]


def _ppo(config: PPOConfig) -> Program:
    hyper = config.ppo
    policy, judge = architecture(config.model), architecture(config.reward_model)
    check_platform(hyper.attention, "tpu")
    P, R = config.max_prompt, hyper.sampling.max_new_tokens
    if config.reward_function is not None:
        raise InputError("plan: a reward_function cannot be planned; give a reward_model")

    def trace(mesh: Mesh):
        actor, reference, scorer = (
            _abstract(policy, "lm"), _abstract(policy, "lm"), _abstract(judge, "reward")
        )  # fmt: skip
        for path, model in ((config.model, actor), (config.reward_model, scorer)):
            check_room(config, model, path, 0)
        state = jax.eval_shape(partial(init, hyper), actor, reference, scorer)
        computing = partial(in_dtype, dtype=hyper.compute_dtype)
        frozen = placed(jax.eval_shape(computing, state.frozen), mesh)
        state = placed(state.replace(frozen=None), mesh)
        of, B = jax.ShapeDtypeStruct, hyper.batch_size
        supervised = None
        if hyper.supervised_coefficient:
            supervised = _texts(hyper.updates, hyper.supervised_batch_size, config.max_length)
        batch = PPOBatch(
            of((B, P), jnp.int32), of((B, P), jnp.bool), of((B,), jnp.int32),
            of((B,), jnp.float32), supervised,
        )  # fmt: skip
        kinds = {"parameters": state.trainable, "frozen": frozen, "optimiser": state.optimiser}
        return ppo_step.trace(state, frozen, batch), kinds

    itemsize, mesh = jnp.dtype(hyper.compute_dtype).itemsize, config.mesh
    heads = -(-policy.num_key_value_heads // mesh.tensor)
    rows = (hyper.rollout_rows or hyper.rows) / mesh.rows
    cache = rows * (P + R) * policy.num_hidden_layers * 2 * heads * policy.head_dim
    token_bytes = itemsize * (parameters(policy) / mesh.tensor + cache)
    every = config.checkpoint_every
    return Program((policy, judge), hyper.row_counts, R, token_bytes, every, trace)


def _sft(config: SFTConfig) -> Program:
    model = architecture(config.model) if config.model else config.architecture
    optimiser = optimizer(config.optimizer, config.steps)

    def trace(mesh: Mesh):
        state = _state(model, "lm", optimiser, mesh)
        batch = _texts(config.batch_size, config.max_length)
        return sft.step.trace(state, batch, optimiser=optimiser, memory=config.memory), _kinds(
            state
        )

    return _of_one_model(config, model, trace)


def _reward(config: RewardConfig) -> Program:
    model = architecture(config.model)
    optimiser = optimizer(config.optimizer, 1000)

    def trace(mesh: Mesh):
        state = _state(model, "reward", optimiser, mesh)
        texts = _texts(config.batch_size, config.max_length)
        batch = PairBatch(texts.tokens, texts.mask, texts.tokens, texts.mask)
        return reward.step.trace(
            state, batch, optimiser=optimiser, l2=config.l2, memory=config.memory
        ), _kinds(state)

    return _of_one_model(config, model, trace)


def _dpo(config: DPOConfig) -> Program:
    model = architecture(config.model)
    optimiser = optimizer(config.optimizer, config.steps)

    def trace(mesh: Mesh):
        state = _state(model, "lm", optimiser, mesh)
        reference = placed(_abstract(model, "lm"), mesh)
        batch = DPOBatch(*_texts(2 * config.batch_size, config.max_length))
        traced = dpo.step.trace(
            state, reference, batch, optimiser=optimiser, beta=config.beta, memory=config.memory
        )
        return traced, _kinds(state) | {"frozen": reference}

    return _of_one_model(config, model, trace)


def _of_one_model(
    config: SFTConfig | RewardConfig | DPOConfig, model: GLMConfig, trace: Callable
) -> Program:
    check_platform(config.memory.attention, "tpu")
    rows = config.memory.row_counts(config.batch_size, config.optimizer)
    return Program((model,), rows, 0, 0.0, config.checkpoint_every, trace)


def _abstract(config: GLMConfig, head: Head) -> GLM:
    return nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0), head))


def _state(config: GLMConfig, head: Head, optimiser: Any, mesh: Mesh) -> TrainState:
    return placed(
        jax.eval_shape(partial(start, optimiser=optimiser), _abstract(config, head)), mesh
    )


def _kinds(state: TrainState) -> dict[str, Any]:
    return {"parameters": state.model, "optimiser": state.optimiser}


def _texts(*shape: int) -> SFTBatch:
    of = jax.ShapeDtypeStruct
    return SFTBatch(of(shape, jnp.int32), of(shape, jnp.bool), of(shape, jnp.bool))
