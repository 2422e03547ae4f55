"""Held-out pairs: what the model under training says of them, and which model is kept.

By the ranking loss on the *balanced* ones: accuracy on labels that carry the annotators' liking for
length prefers the model that learned it. Dims: N pairs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.checkpoint.pretrained import save_pretrained
from glm_jax.data import records
from glm_jax.data.balance import balance
from glm_jax.data.batches import PairArrays, pair_arrays
from glm_jax.data.lengths import response_lengths
from glm_jax.data.pair_batches import PairBatches
from glm_jax.data.pair_table import group_codes, scan
from glm_jax.data.records import Pair, draw
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.processes import decided, leads
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import loop
from glm_jax.train.reward_step import scored
from glm_jax.train.run_folder import JsonLines, read_rows
from glm_jax.train.update import MemoryConfig, TrainState

EVALUATIONS = "evaluations.jsonl"


class HeldOut:
    """Pairs in batches as in training, and which of them are left when they are balanced."""

    def __init__(
        self, pairs: Sequence[Pair], arrays: PairArrays, lengths_2xN: np.ndarray, *, batch: int,
        unit: int, seed: int, memory: MemoryConfig,
    ):  # fmt: skip
        """`pairs[n]` is row n of the arrays; `lengths_2xN`: of both responses, before any cut,
        since that is what the annotators saw."""
        self._pairs, self._arrays, self._memory = pairs, arrays, memory
        self.lengths_2xN = lengths_2xN
        # by place: of the file's ids some may be equal
        draws_N = np.array([draw(seed, f"{n}") for n in arrays.rows_N], np.uint64)
        kept = balance(*self.lengths_2xN, draws_N, group_codes(scan([pairs]))).kept
        self.balanced_N = np.isin(np.arange(len(pairs)), kept)
        if not len(kept):
            raise InputError(
                f"of {len(pairs)} held-out pairs none is left after balancing, by which the best "
                f"model is chosen: hold out more of them"
            )
        nothing, one = np.zeros(len(pairs), np.float32), np.ones(len(pairs), np.float32)
        batch = min(batch, len(pairs))
        self._batches = PairBatches(
            arrays, nothing, one, batch=batch, steps=math.ceil(len(pairs) / batch), unit=unit,
            shared=memory.attention == "plain",
        )  # fmt: skip

    @classmethod
    def of(
        cls, pairs: Sequence[Pair], tokenizer: Tokenizer, max_length: int, **settings: Any
    ) -> "HeldOut":
        """The pairs that fit into `max_length` tokens; `settings` as above."""
        arrays, _ = pair_arrays(pairs, tokenizer, max_length)
        if not len(arrays.rows_N):
            raise InputError(f"no held-out pair fits into {max_length} tokens")
        fit = [pairs[row] for row in arrays.rows_N]
        return cls(fit, arrays, np.stack(response_lengths(fit, tokenizer)), **settings)

    def scores(self, model: GLM) -> np.ndarray:
        """Of chosen and rejected, [2, N] float32."""
        memory, found_2xN = self._memory, np.zeros((2, len(self._pairs)), np.float32)
        for batch, rows in zip(self._batches, self._batches.plan.batches, strict=True):
            given = scored(model, batch, dtype=memory.compute_dtype, attention=memory.attention)
            for side, scores_RxK in enumerate(map(np.asarray, given)):
                for r, pairs in enumerate(rows):
                    found_2xN[side, pairs] = scores_RxK[r, : len(pairs)]
        return found_2xN

    def figures(self, scores_2xN: np.ndarray) -> dict[str, float]:
        """Ranking loss and accuracy of all pairs and of the balanced ones; level and spread."""
        gaps_N = (scores_2xN[0] - scores_2xN[1]).astype(np.float64)
        losses_N, right_N = np.logaddexp(0.0, -gaps_N), 0.5 + 0.5 * np.sign(gaps_N)
        found = {}
        for name, some in (("", slice(None)), ("balanced_", self.balanced_N)):
            found[f"{name}loss"] = float(losses_N[some].mean())
            found[f"{name}accuracy"] = float(right_N[some].mean())
        scores = scores_2xN.astype(np.float64)
        return found | {"score": float(scores.mean()), "score_spread": float(scores.std())}

    def write(self, file: Path, model: GLM) -> None:
        """One line a pair: its scores, and what they may depend on; whole or not at all."""
        scores_2xN = self.scores(model)
        if leads():
            records.write(file, [self._row(n, scores_2xN) for n in range(len(self._pairs))])

    def _row(self, n: int, scores_2xN: np.ndarray) -> dict[str, Any]:
        pair = self._pairs[n]
        return {
            "row": int(self._arrays.rows_N[n]),
            "id": pair.id,
            "category": pair.category,
            "language": pair.language,
            "balanced": bool(self.balanced_N[n]),
            "chosen_score": float(scores_2xN[0, n]),
            "rejected_score": float(scores_2xN[1, n]),
            "chosen_tokens": int(self.lengths_2xN[0, n]),
            "rejected_tokens": int(self.lengths_2xN[1, n]),
            "prompt_tokens": int(self._arrays.prompt_lengths_N[n]),
            "turns": sum(message["role"] == "user" for message in pair.prompt),
        }


def kept(evaluations: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the model that is kept: the first with the least balanced loss, once trained."""
    return min((row for row in evaluations if row["step"]), key=lambda row: row["balanced_loss"])


def watching(
    folder: Path, held_out: HeldOut, tokenizer: Tokenizer, patience: int | None
) -> Callable[[int, TrainState], bool]:
    """What the loop calls to look at the held-out pairs: it says whether to end.

    evaluations.jsonl has a row for each call, and `best` the model that `kept` names. A resumed
    run comes to the same rows again, and to the same model.
    """
    file, start = folder / EVALUATIONS, loop.steps_done(folder)
    losses = decided(
        lambda: [row["balanced_loss"] for row in read_rows(file) if 0 < row["step"] < start]
    )

    def look(i: int, state: TrainState) -> bool:
        found = held_out.figures(held_out.scores(state.model))
        if i and (not losses or found["balanced_loss"] < min(losses)):
            save_pretrained(state.model, folder / "best", tokenizer)
        with closing(JsonLines(file, i)) as log:
            log.write({"step": i, **found})
        if not i:
            return False
        losses.append(found["balanced_loss"])
        return patience is not None and len(losses) - 1 - int(np.argmin(losses)) >= patience

    return look
