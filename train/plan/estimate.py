"""What a run takes of a chip's memory, by arithmetic that can be checked by hand.

Declared arrays are there all the time; on top of them comes the largest of the phases that follow
one another in a step. A phase holds weights in the compute dtype, gradients, the key/value cache
and activations. All sizes are bytes on a chip.
"""

from typing import NamedTuple

import jax.numpy as jnp

from glm_jax.train.dpo import DPOConfig
from glm_jax.train.plan.activations import Text, cache
from glm_jax.train.plan.program import Config, memory_of
from glm_jax.train.plan.sizes import Sizes, Weights
from glm_jax.train.ppo.config import PPOConfig
from glm_jax.train.reward import RewardConfig


class Phase(NamedTuple):
    weights_in_compute_dtype: float = 0.0
    gradients: float = 0.0
    cache: float = 0.0
    activations: float = 0.0


class Estimate(NamedTuple):
    declared: dict[str, int]
    phases: dict[str, Phase]

    @property
    def peak(self) -> str:
        """The phase that takes most."""
        return max(self.phases, key=lambda name: sum(self.phases[name]))

    @property
    def bytes(self) -> dict[str, int]:
        """By kind, when most is taken."""
        largest = self.phases[self.peak]._asdict()
        return self.declared | {kind: round(size) for kind, size in largest.items()}

    @property
    def used(self) -> int:
        return sum(self.bytes.values())


def estimate(config: Config, of: Sizes) -> Estimate:
    """What a run takes on the mesh that the sizes are of."""
    if isinstance(config, PPOConfig):
        return Estimate(of.declared, _ppo(config, of))
    return Estimate(of.declared, {"update": _update(config, of, learned(config, of))})


class Pass(NamedTuple):
    """Rows that go through a model at a time in training."""

    weights: Weights
    text: Text
    columns: int  # tokens of a row that the loss is of
    chunk: int | None  # so many of them have logits in memory at a time; None: all

    @property
    def head(self) -> float:
        return self.text.head(min(self.chunk or self.columns, self.columns))

    @property
    def waiting(self) -> float:
        """The gradient of whole logits waits for its product with the states."""
        if not self.columns or (self.chunk or self.columns) < self.columns:
            return 0.0
        return self.text.stream + self.text.logits(self.columns)


def learned(config: Config, of: Sizes) -> list[Pass]:
    """The forward and backward passes of one gradient, which is of the sum of their losses."""
    part = memory_of(config)
    if not isinstance(config, PPOConfig):
        (model,) = of.trained
        rows, tokens = config.memory.rows or config.batch_size, config.max_length
        if isinstance(config, DPOConfig):
            rows *= 2  # the two of a pair
        elif isinstance(config, RewardConfig):
            tokens *= 2  # which lie in one row
        text = Text(
            model.model, of.mesh, rows, tokens, jnp.dtype(part.compute_dtype).itemsize,
            attention=part.attention,
        )  # fmt: skip
        columns = 0 if isinstance(config, RewardConfig) else text.tokens
        return [Pass(model, text, columns, part.log_prob_chunk)]
    R = config.ppo.sampling.max_new_tokens
    text, (actor, *critic) = scored(config, of, "ppo.update_rows"), of.trained
    passes = [Pass(actor, text, R, config.ppo.log_prob_chunk)]
    if config.ppo.supervised_coefficient:
        rows = config.ppo.row_counts["ppo.supervised_batch_size"]
        told = text._replace(rows=rows, tokens=config.max_length)
        passes.append(Pass(actor, told, told.tokens, part.log_prob_chunk))
    if not config.ppo.share_trunk:
        passes += [Pass(w, text._replace(model=w.model), 0, None) for w in critic]
    return passes


def scored(config: PPOConfig, of: Sizes, rows: str = "ppo.scoring_rows") -> Text:
    """Prompts with their answers, as many as are scored at a time."""
    tokens = config.max_prompt + config.ppo.sampling.max_new_tokens
    itemsize = jnp.dtype(config.ppo.compute_dtype).itemsize
    number, attention = config.ppo.row_counts[rows], config.ppo.attention
    return Text(of.trained[0].model, of.mesh, number, tokens, itemsize, attention=attention)


def _ppo(config: PPOConfig, of: Sizes) -> dict[str, Phase]:
    hyper, (actor, *_) = config.ppo, of.trained
    P, R = config.max_prompt, hyper.sampling.max_new_tokens
    drawn, text = scored(config, of, "ppo.rollout_rows"), scored(config, of)
    columns = min(hyper.log_prob_chunk or R, R) + 1
    split = of.mesh.fsdp > 1  # if not, weights are whole as they are
    phases = {
        "rollout": Phase(
            weights_in_compute_dtype=(actor.gathered if split else actor.copied) + actor.turned,
            cache=cache(drawn),
            # the prompts are read; then the loop over tokens holds half of the cache twice
            activations=max(
                drawn._replace(tokens=P, columns=P + R, attention="plain").forward, cache(drawn) / 2
            ),
        ),
        # of one model at a time the compiler gathers all layers before its loop over them
        "scoring": Phase(
            weights_in_compute_dtype=sum(w.copied for w in of.trained)
            + (max(w.gathered for w in of.trained + of.frozen) if split else 0),
            activations=text.forward + text.head(columns),
        ),
    }
    passes = learned(config, of)
    if not hyper.layerwise:
        return phases | {"update": _update(config, of, passes)}
    own, others = (
        [one for one in passes if (one.weights is actor) == of_actor] for of_actor in (True, False)
    )
    phases["update of the actor"] = _update(config, of, own)
    if others:
        phases["update of the critic"] = _update(config, of, others)
    return phases


def _update(config: Config, of: Sizes, passes: list[Pass]) -> Phase:
    """The backward pass of a gradient.

    Adam takes no memory of its own: it is one pass over gradient, moments and weights.
    """
    part = memory_of(config)
    weights = list({id(one.weights): one.weights for one in passes}.values())
    # the layer-wise update keeps the input of a layer and nothing else of it
    remat = "full" if part.layerwise else part.remat
    kept = sum(one.text.kept(remat) for one in passes)
    head, layer = max(one.head for one in passes), max(one.text.backward for one in passes)
    if isinstance(config, DPOConfig):
        head *= 2  # the reference's logits are there at the same time
    copied = sum(w.copied for w in of.frozen)
    if part.layerwise:  # a layer is cast and has a gradient by itself
        parts = [w.ends / w.gradient + 1 / w.model.num_hidden_layers for w in weights]
        copied += sum(part * w.copied for part, w in zip(parts, weights, strict=True))
        gradients = sum(part * w.gradient for part, w in zip(parts, weights, strict=True))
    else:
        copied += sum(w.copied for w in weights)
        layer += sum(one.waiting for one in passes)
        # the backward pass gives them in the compute dtype; what adds up does so beside them
        gradients = sum(w.cast for w in weights)
        if _in_parts(config):
            gradients = sum(w.gradient for w in weights) + max(w.cast for w in weights)
    return Phase(copied, gradients, 0.0, kept + max(layer, head))


def _in_parts(config: Config) -> bool:
    """Whether the gradients of several micro-batches add up."""
    if isinstance(config, PPOConfig):
        return config.ppo.micro_batches > 1
    return (config.memory.rows or config.batch_size) < config.batch_size
