"""Rollouts in fewer rows than there are prompts: a row whose answer has ended gets the next prompt.

Dims: B prompts, S slots (rows that are decoded at once), K slots filled at a time, P prompt
tokens, R response tokens.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from glm_jax.decoding import STOP, Completions, Decoding, rollout, start, step, unwritten
from glm_jax.errors import InputError
from glm_jax.layers import Cache
from glm_jax.model import GLM
from glm_jax.sampling import Sampling


class Refilling(NamedTuple):
    """Slots at work, the prompt that each has, and the answers of those that are done."""

    slots: Decoding
    rows: Int[Array, "S"]  # B: none
    queued: Int[Array, ""]  # the first prompt that has had no slot
    answers: Completions  # of all B prompts


def rollout_in_slots(
    model: GLM,
    prompts_BxP: Int[Array, "B P"],
    prompt_mask_BxP: Bool[Array, "B P"],
    keys_B: Key[Array, "B"],
    sampling: Sampling,
    slots: int,
    refill: int = 0,
) -> Completions:
    """The answers of `glm_jax.decoding.rollout`, decoded `slots` rows at a time.

    With `refill` K, the next prompts are read whenever K slots are free; with 0 a new set of
    prompts starts when all answers of the last have ended, and `slots` must divide the prompts.
    """
    B = len(prompts_BxP)
    if slots >= B:
        return rollout(model, prompts_BxP, prompt_mask_BxP, keys_B, sampling)
    if not 0 <= refill <= slots:
        raise InputError(
            f"refill must be at most the {slots} slots, and not negative; got {refill}"
        )
    if refill:
        return _refilled(model, prompts_BxP, prompt_mask_BxP, keys_B, sampling, slots, refill)
    if B % slots:
        raise InputError(f"slots ({slots}) must divide the {B} prompts, unless they are refilled")
    sets = jax.tree.map(
        lambda x: x.reshape(-1, slots, *x.shape[1:]), (prompts_BxP, prompt_mask_BxP, keys_B)
    )
    model = model.for_decoding()
    drawn = jax.lax.map(lambda of: rollout(model, *of, sampling), sets)
    return jax.tree.map(lambda x: x.reshape(B, *x.shape[2:]), drawn)


def _refilled(model, prompts_BxP, mask_BxP, keys_B, sampling, S: int, K: int) -> Completions:
    (B, P), R, pad = prompts_BxP.shape, sampling.max_new_tokens, model.config.pad_token_id
    model = model.for_decoding()

    def busy(state: Refilling) -> Bool[Array, ""]:
        """Until the next prompts find K slots free; when none is left, until all is done."""
        left = B - state.queued
        needed = jnp.where(left > 0, jnp.minimum(left, K), S)
        return jnp.sum(~state.slots.live) < needed

    def decode(state: Refilling) -> Refilling:
        return state._replace(slots=step(model, state.slots, sampling))

    def fill_and_decode(state: Refilling) -> Refilling:
        rows_K = state.queued + jnp.arange(K)
        of_K = jnp.minimum(rows_K, B - 1)
        new = start(model, prompts_BxP[of_K], mask_BxP[of_K], keys_B[of_K], sampling, room=0)
        # free slots come first; what has no prompt goes to no slot, and is dropped
        free_K = jnp.argsort(state.slots.live)[:K]
        free_K = jnp.where(rows_K < B, free_K, S)
        rows_S = state.rows.at[free_K].set(jnp.minimum(rows_K, B), mode="drop")
        slots = _filled(state.slots, new, free_K)
        slots = slots._replace(keys=keys_B[jnp.minimum(rows_S, B - 1)])
        state = state._replace(slots=slots, rows=rows_S, queued=jnp.minimum(rows_K[-1] + 1, B))
        with jax.named_scope("decode"):
            state = jax.lax.while_loop(busy, decode, state)
        answers = jax.tree.map(
            lambda all_B, of_S: all_B.at[rows_S].set(of_S, mode="drop"),
            state.answers,
            state.slots.completions,
        )
        return state._replace(answers=answers)

    # at first all slots are as if their answers had just ended
    cache = model.empty_cache(S, P + R)
    ended = unwritten(S, R, pad)._replace(finish=jnp.full((S,), STOP, jnp.int32))
    slots = Decoding(
        ended,
        jnp.ones((S,), jnp.int32),
        cache._replace(column=jnp.int32(P)),
        jnp.zeros((S, P + R), bool),
        jnp.ones((S,), jnp.int32),
        keys_B[:S],
    )
    state = Refilling(slots, jnp.full((S,), B, jnp.int32), jnp.int32(0), unwritten(B, R, pad))
    state = jax.lax.while_loop(lambda state: state.queued < B, fill_and_decode, state)
    return state.answers


def _filled(slots: Decoding, new: Decoding, free_K: Int[Array, "K"]) -> Decoding:
    """The slots with new answers in the free ones; the keys are as before."""

    def put(old, new):
        return old.at[free_K].set(new, mode="drop")

    P, R = new.mask.shape[1], new.completions.tokens.shape[1]
    return Decoding(
        jax.tree.map(put, slots.completions, new.completions),
        put(slots.places, new.places),
        _prompts_put(slots.cache, new.cache, free_K, P),
        put(slots.mask, jnp.pad(new.mask, ((0, 0), (0, R)))),
        put(slots.lengths, new.lengths),
        slots.keys,
    )


def _prompts_put(cache: Cache, new: Cache, free_K: Int[Array, "K"], P: int) -> Cache:
    """The cache with K prompts' keys and values in the first P columns of the free slots."""

    def put(old, new, columns: int):
        layers = (slice(None),) * (old.ndim - 4)  # when all are in one array
        at = [*layers, free_K, *(slice(None),) * 3]
        at[columns] = slice(P)
        return old.at[tuple(at)].set(new, mode="drop")

    k = jax.tree.map(lambda old, new: put(old, new, -1), cache.k, new.k)
    v = jax.tree.map(lambda old, new: put(old, new, -2), cache.v, new.v)
    return cache._replace(k=k, v=v)
