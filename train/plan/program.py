"""The program that a run would compile, from its configuration alone: shapes in place of arrays."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.tree_util import Partial

from glm_jax.checkpoint.pretrained import architecture_of
from glm_jax.config import GLMConfig
from glm_jax.data.pair_batches import PairBatch
from glm_jax.decoding import Completions
from glm_jax.errors import InputError
from glm_jax.heads import Head
from glm_jax.model import GLM
from glm_jax.presets import PRESETS
from glm_jax.sharding import placed
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import dpo, reward_step, sft
from glm_jax.train.dpo import DPOBatch, DPOConfig
from glm_jax.train.optimizer import optimizer
from glm_jax.train.plan.flops import Rounds
from glm_jax.train.ppo.config import PPOConfig, check_room, check_source
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import init, ppo_step
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.reward import RewardConfig
from glm_jax.train.scoring import in_dtype
from glm_jax.train.sft import SFTBatch, SFTConfig
from glm_jax.train.update import MemoryConfig, TrainState, start

Config = PPOConfig | SFTConfig | RewardConfig | DPOConfig


class Program(NamedTuple):
    """A run's step, and what it is given."""

    models: tuple[GLMConfig, ...]
    rows: dict[str, int]
    rounds: Rounds  # of the loops that draw answers
    every: int  # steps between checkpoints
    declared: dict[str, Any]  # shapes by kind: parameters, frozen, optimiser
    trace: Callable[[Mesh | None], Any]
    """The step, traced for the mesh; called on the mesh."""


def program(config: Config) -> Program:
    """What `run(config)` would compile. Raises InputError where a model is not known."""
    kinds = {PPOConfig: _ppo, SFTConfig: _sft, RewardConfig: _reward, DPOConfig: _dpo}
    return kinds[type(config)](config)


def on_accelerator(config: Config) -> Config:
    """The configuration with the dtype that an accelerator computes in where none is given."""
    return _with(config, compute=memory_of(config).compute or "bfloat16")


def memory_of(config: Config) -> PPOHyperparameters | MemoryConfig:
    """Where a stage's settings of memory are."""
    return config.ppo if isinstance(config, PPOConfig) else config.memory


def countable(config: Config) -> Any:
    """The step as traced on one device, to count its operations. With plain attention, which has
    as many: a kernel for GPUs cannot be traced where its library is not."""
    return program(_with(config, attention="plain")).trace(None).jaxpr


def _with(config: Config, **settings: Any) -> Config:
    """The configuration with other settings of memory."""
    name = "ppo" if isinstance(config, PPOConfig) else "memory"
    return replace(config, **{name: replace(memory_of(config), **settings)})


def row_counts(config: Config) -> dict[str, int]:
    """Rows that go through the models together, by the keys that say so."""
    if isinstance(config, PPOConfig):
        return config.ppo.row_counts
    return config.memory.row_counts(config.batch_size, config.optimizer)


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
    check_source(config)
    policy = architecture(config.model)
    P, B = config.max_prompt, hyper.batch_size
    actor, reference, scorer = _abstract(policy, "lm"), _abstract(policy, "lm"), Partial(_no_reward)
    check_room(config, actor, config.model, 0)
    models = [policy]
    if config.reward_model:
        models.append(architecture(config.reward_model))
        scorer = _abstract(models[-1], "reward")
        check_room(config, scorer, config.reward_model, 0)
    state = jax.eval_shape(partial(init, hyper), actor, reference, scorer)
    frozen = jax.eval_shape(partial(in_dtype, dtype=hyper.compute_dtype), state.frozen)
    state = state.replace(frozen=None)
    declared = {"parameters": state.trainable, "frozen": frozen, "optimiser": state.optimiser}

    def trace(mesh: Mesh | None) -> Any:
        of = jax.ShapeDtypeStruct
        supervised = None
        if hyper.supervised_coefficient:
            supervised = _texts(hyper.updates, hyper.supervised_batch_size, config.max_length)
        batch = PPOBatch(
            of((B, P), jnp.int32), of((B, P), jnp.bool), of((B,), jnp.int32),
            of((B,), jnp.float32), supervised,
        )  # fmt: skip
        return ppo_step.trace(placed(state, mesh), placed(frozen, mesh), batch)

    every = config.checkpoint_every
    return Program(tuple(models), row_counts(config), _rounds(hyper), every, declared, trace)


def _rounds(hyper: PPOHyperparameters) -> Rounds:
    """When all answers are as long as they may be."""
    slots, tokens = hyper.rollout_rows or hyper.rows, hyper.sampling.max_new_tokens
    if not hyper.refill:
        return Rounds(tokens, hyper.rows / slots)
    return Rounds(tokens * hyper.refill / slots, hyper.rows / hyper.refill)


def _no_reward(batch: PPOBatch, drawn: Completions) -> jax.Array:
    """In the place of a function, which takes next to no memory on a device."""
    return jnp.zeros(drawn.finish.shape, jnp.float32)


def _sft(config: SFTConfig) -> Program:
    if config.model:
        model = architecture(config.model)
    elif config.tokenizer and Path(config.tokenizer).exists():
        model = sft.architecture_for(Tokenizer.load(config.tokenizer), config)
    else:
        model = config.architecture
    optimiser = optimizer(config.optimizer, config.steps)
    state = _state(model, "lm", optimiser)

    def trace(mesh: Mesh | None) -> Any:
        batch = _texts(config.batch_size, config.max_length)
        return sft.step.trace(placed(state, mesh), batch, optimiser=optimiser, memory=config.memory)

    return _of_one_model(config, model, _kinds(state), trace)


def _reward(config: RewardConfig) -> Program:
    model = architecture(config.model)
    optimiser = optimizer(config.optimizer, 1000)
    state = _state(model, "reward", optimiser)

    def trace(mesh: Mesh | None) -> Any:
        # at most: a row for each pair, of two whole texts
        B, of = config.batch_size, jax.ShapeDtypeStruct
        row, places = of((B, 2 * config.max_length), jnp.int32), of((B, 1), jnp.float32)
        batch = PairBatch(row, row, row, row, of((B, 1, 2), jnp.int32), places, places)
        return reward_step.step.trace(
            placed(state, mesh), batch, optimiser=optimiser, ranking=config.ranking,
            memory=config.memory,
        )  # fmt: skip

    return _of_one_model(config, model, _kinds(state), trace)


def _dpo(config: DPOConfig) -> Program:
    model = architecture(config.model)
    optimiser = optimizer(config.optimizer, config.steps)
    state, reference = _state(model, "lm", optimiser), _abstract(model, "lm")

    def trace(mesh: Mesh | None) -> Any:
        batch = DPOBatch(*_texts(2 * config.batch_size, config.max_length))
        return dpo.step.trace(
            placed(state, mesh), placed(reference, mesh), batch, optimiser=optimiser,
            beta=config.beta, memory=config.memory,
        )  # fmt: skip

    return _of_one_model(config, model, _kinds(state) | {"frozen": reference}, trace)


def _of_one_model(
    config: SFTConfig | RewardConfig | DPOConfig, model: GLMConfig, declared: dict[str, Any],
    trace: Callable[[Mesh | None], Any],
) -> Program:  # fmt: skip
    return Program((model,), row_counts(config), Rounds(), config.checkpoint_every, declared, trace)


def _abstract(config: GLMConfig, head: Head) -> GLM:
    return nnx.eval_shape(lambda: GLM(config, nnx.Rngs(0), head))


def _state(config: GLMConfig, head: Head, optimiser: Any) -> TrainState:
    return jax.eval_shape(partial(start, optimiser=optimiser), _abstract(config, head))


def _kinds(state: TrainState) -> dict[str, Any]:
    return {"parameters": state.model, "optimiser": state.optimiser}


def _texts(*shape: int) -> SFTBatch:
    of = jax.ShapeDtypeStruct
    return SFTBatch(of(shape, jnp.int32), of(shape, jnp.bool), of(shape, jnp.bool))
