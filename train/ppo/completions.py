"""What a PPO run keeps of its rollouts: every answer, and the batch that broke it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glm_jax.data.records import Prompt
from glm_jax.decoding import FINISH_REASONS
from glm_jax.processes import leads
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train.ppo.rollout import Scored
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.run_folder import JsonLines


def write_completions(
    log: JsonLines,
    i: int,
    batch: PPOBatch,
    drawn: Scored,
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
) -> None:
    """A line for each answer of iteration i."""
    samples = len(drawn.finish) // len(batch.rows)
    for b, row in enumerate(np.repeat(batch.rows, samples)):
        length = int(drawn.mask[b].sum())
        log.write(
            {
                "step": i,
                "id": prompts[row].id,
                "sample": b % samples,
                "category": prompts[row].category,
                "text": tokenizer.decode_response(drawn.tokens[b, :length].tolist()),
                "score": float(drawn.scores[b]),
                "reference_score": float(batch.reference_scores[b // samples]),
                "kl": float(drawn.kl[b]),
                "length": length,
                "finish": FINISH_REASONS[drawn.finish[b]],
            }
        )


def keep_batch(folder: Path, i: int, batch: PPOBatch, drawn: Scored) -> Path:
    """Writes all that went into iteration i's updates to skipped_batch.npz, as plain arrays.

    Its arrays are `iteration`, the fields of the batch (of the supervised one with the prefix
    `supervised_`) and of the answers.
    """
    arrays = {"iteration": i, **batch._asdict(), **drawn._asdict()}
    if supervised := arrays.pop("supervised"):
        arrays |= {f"supervised_{name}": value for name, value in supervised._asdict().items()}
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    file = folder / "skipped_batch.npz"
    if not leads():
        return file
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with open(temporary, "wb") as out:
        np.savez(out, allow_pickle=False, **arrays)
    os.replace(temporary, file)
    return file
