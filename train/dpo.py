"""Direct preference optimisation (Rafailov et al., 2023, arXiv 2305.18290).

As in ChatGLM-RLHF, the pairs are the model's own responses as the reward model ranks them:
`label_pairs` makes them.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from glm_jax.attention import check_platform
from glm_jax.checkpoint.pretrained import architecture_of, save_pretrained
from glm_jax.configuration import configuration, required
from glm_jax.data.batches import PairArrays, order, pair_arrays, span_mask
from glm_jax.data.records import Pair, Sample, read
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig, mesh_for, on_mesh
from glm_jax.model import GLM
from glm_jax.sharding import placed
from glm_jax.train import loop
from glm_jax.train.losses import dpo_loss
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.policy import load_policy
from glm_jax.train.run_folder import begun, claim, write_json
from glm_jax.train.scoring import in_dtype, token_log_probs
from glm_jax.train.update import WHOLE_BATCH, MemoryConfig, TrainState, start, update


@configuration
class DPOConfig:
    run: str = ""
    "the run's folder; the model comes to lie in its subfolder `model`"
    model: str = ""
    "folder of the SFT model: where the policy starts, and its reference"
    pairs: str = ""
    "file of pairs"
    max_length: PositiveInt = 256
    beta: PositiveFloat = 0.5
    "weight of the log-ratio to the reference: the larger, the closer the policy stays"
    steps: PositiveInt = 60
    batch_size: PositiveInt = 64
    "pairs"
    mesh: MeshConfig = MeshConfig()
    memory: MemoryConfig = MemoryConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=2e-4)
    checkpoint_every: PositiveInt = 20
    seed: NonNegativeInt = 0


class DPOBatch(NamedTuple):
    """Chosen rows, then as many rejected ones; `response` is True on the responses."""

    tokens: Int[Array, "B2 T"]
    mask: Bool[Array, "B2 T"]
    response: Bool[Array, "B2 T"]


def response_log_probs(model: GLM, batch: DPOBatch, chunk: int | None = None) -> Float[Array, "B2"]:
    """log p of each whole response; `chunk` tokens of a text have logits in memory at a time."""
    T = batch.tokens.shape[1]
    log_probs = token_log_probs(model, batch.tokens, batch.mask, T - 1, chunk=chunk)
    return jnp.sum(jnp.where(batch.response[:, 1:], log_probs, 0.0), axis=1)


@partial(jax.jit, static_argnames=("optimiser", "beta", "memory"), donate_argnums=0)
def step(
    state: TrainState, reference: GLM, batch: DPOBatch, *, optimiser, beta: float,
    memory: MemoryConfig = WHOLE_BATCH,
) -> tuple:  # fmt: skip
    reference = in_dtype(reference, memory.compute_dtype, memory.attention)
    # the two of a pair stay together: [B, 2, T]
    pairs = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]).swapaxes(0, 1), batch)

    def summed(model: GLM, pairs: DPOBatch):
        rows = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, x.shape[-1]), pairs)
        of = partial(response_log_probs, batch=rows, chunk=memory.log_prob_chunk)
        anchors, (chosen_B, rejected_B) = (jnp.split(of(m), 2) for m in (reference, model))
        margins_B = beta * ((chosen_B - anchors[0]) - (rejected_B - anchors[1]))
        accuracy = jnp.sum(0.5 + 0.5 * jnp.sign(margins_B))
        sums = {"accuracy": accuracy, "margin": jnp.sum(margins_B)}
        return jnp.sum(dpo_loss(chosen_B, rejected_B, *anchors, beta)), sums

    return update(state, summed, pairs, float(len(pairs.tokens)), optimiser, memory)


def batch_of(arrays: PairArrays, rows: np.ndarray) -> DPOBatch:
    tokens = np.concatenate([arrays.chosen_NxT[rows], arrays.rejected_NxT[rows]])
    lengths = np.concatenate([arrays.chosen_lengths_N[rows], arrays.rejected_lengths_N[rows]])
    starts, T = np.tile(arrays.prompt_lengths_N[rows], 2), tokens.shape[1]
    return DPOBatch(
        tokens, span_mask(np.zeros_like(lengths), lengths, T), span_mask(starts, lengths, T)
    )


def label_pairs(samples: Iterable[Sample], scores: np.ndarray) -> list[Pair]:
    """The best against the worst response of each prompt, by score; equal scores give no pair."""
    groups: dict[str, list[tuple[float, Sample]]] = defaultdict(list)
    for sample, score in zip(samples, scores, strict=True):
        groups[sample.id].append((float(score), sample))
    pairs = []
    for prompt_id, group in groups.items():
        worst, best = min(group, key=lambda g: g[0]), max(group, key=lambda g: g[0])
        if best[0] > worst[0] and best[1].text != worst[1].text:
            pairs.append(
                Pair(
                    id=prompt_id, prompt=best[1].prompt, chosen=best[1].text,
                    rejected=worst[1].text, category=best[1].category, prompt_id=prompt_id,
                )
            )  # fmt: skip
    return pairs


def run(config: DPOConfig) -> Path:
    """Trains, or resumes training, and returns the folder of the model."""
    required(config, "run", "model", "pairs")
    output = Path(config.run) / "model"
    if begun(config.run, config) and output.exists():
        return output
    check_platform(config.memory.attention, jax.default_backend())
    rows = config.memory.row_counts(config.batch_size, config.optimizer)
    mesh = mesh_for(config.mesh, [architecture_of(config.model)], rows)
    reference, tokenizer = load_policy(config.model, mesh=mesh)
    pairs = [pair for pair in read(config.pairs, Pair) if not pair.tie]
    for pair in pairs:
        for name in ("margin", "weight"):
            if getattr(pair, name) is not None:
                raise InputError(
                    f"{config.pairs}: the pair {pair.id!r} has a {name}, which the loss of DPO "
                    f"does not take; leave it out"
                )
    arrays, counts = pair_arrays(pairs, tokenizer, config.max_length)
    folder = claim(config.run, config)
    write_json(folder / "counts.json", counts)
    n = len(arrays.rows_N)
    optimiser = optimizer(config.optimizer, config.steps)
    with on_mesh(mesh):
        state = loop.train(
            folder,
            placed(start(load_policy(config.model, mesh=mesh)[0], optimiser), mesh),
            lambda state, batch: step(
                state,
                reference,
                batch,
                optimiser=optimiser,
                beta=config.beta,
                memory=config.memory,
            ),
            lambda i: batch_of(arrays, order(config.seed, n, config.batch_size, i)),
            config.steps,
            label="DPO",
            checkpoint_every=config.checkpoint_every,
        )
    save_pretrained(state.model, output, tokenizer)
    loop.finish(folder)
    return output
