"""Rollouts in slots: every answer is the one that it is in a batch of its own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.decoding import LENGTH, REPETITION, STOP, rollout, row_keys
from glm_jax.errors import InputError
from glm_jax.refill import rollout_in_slots
from glm_jax.sampling import Sampling

B, P = 11, 6
EXPERTS = {
    "model_type": "glm4_moe",
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}


@pytest.fixture(scope="module")
def prompts():
    """Pads on the left, on the right, on both sides; one prompt without any."""
    rng = np.random.default_rng(0)
    lengths, starts = rng.integers(1, P, B), rng.integers(0, P, B)
    lengths[0], starts[0] = P, 0
    starts = np.minimum(starts, P - lengths)[:, None]
    mask = (np.arange(P) >= starts) & (np.arange(P) < starts + lengths[:, None])
    return jnp.asarray(rng.integers(50, size=(B, P), dtype=np.int32)), jnp.asarray(mask)


@partial(jax.jit, static_argnames=("sampling", "slots", "refill"))
def answers(model, prompts, *, sampling, slots=B, refill=0):
    keys = row_keys(jax.random.key(0), jnp.arange(len(prompts[0])))
    return rollout_in_slots(model, *prompts, keys, sampling, slots, refill)


def same(drawn, plain):
    np.testing.assert_array_equal(drawn.tokens, plain.tokens)
    np.testing.assert_array_equal(drawn.mask, plain.mask)
    np.testing.assert_array_equal(drawn.finish, plain.finish)
    np.testing.assert_allclose(drawn.log_probs, plain.log_probs, atol=1e-5)


@pytest.mark.parametrize(("slots", "refill"), [(1, 1), (3, 1), (4, 3), (5, 5), (10, 2), (11, 4)])
def test_refilled_slots_draw_what_the_plain_rollout_draws(tiny, prompts, slots, refill):
    """Of 1 to 20 tokens, so that the column that is written goes round more than once."""
    model, sampling = tiny(eos_token_id=(0, 7, 9, 12)), Sampling(max_new_tokens=20)
    plain = answers(model, prompts, sampling=sampling)
    lengths = plain.lengths.tolist()
    assert len(set(lengths)) > 5 and min(lengths) <= 2 and sum(lengths) > 60
    assert {LENGTH, STOP} == set(plain.finish.tolist())
    same(answers(model, prompts, sampling=sampling, slots=slots, refill=refill), plain)


CASES = {
    "one token each": ({}, Sampling(max_new_tokens=1)),
    "all at the limit": ({}, Sampling(max_new_tokens=7, stop_ids=())),
    "all stop at once": ({}, Sampling(max_new_tokens=7, stop_ids=tuple(range(50)))),
    "repetition": (
        {"vocab_size": 50, "eos_token_id": (49,)},
        Sampling(max_new_tokens=24, temperature=0.0, repeat_ngram=1, repeat_times=3),
    ),
    "cut distributions": ({}, Sampling(max_new_tokens=12, temperature=0.8, top_k=9, top_p=0.8)),
    "experts": (EXPERTS, Sampling(max_new_tokens=12)),
}


@pytest.mark.parametrize("case", CASES)
def test_settings_and_models(tiny, prompts, case):
    changes, sampling = CASES[case]
    model = tiny(**changes)
    plain = answers(model, prompts, sampling=sampling)
    same(answers(model, prompts, sampling=sampling, slots=4, refill=2), plain)
    if case == "repetition":
        assert (plain.finish == REPETITION).sum() > 3


def test_deep_models_keep_their_layers_stacked(tiny, prompts, monkeypatch):
    model, sampling = tiny(), Sampling(max_new_tokens=9)
    plain = answers(model, prompts, sampling=sampling)
    monkeypatch.setattr("glm_jax.stack.UNROLLED", 1)
    keys = row_keys(jax.random.key(0), jnp.arange(B))
    whole = jax.jit(lambda: rollout(model, *prompts, keys, sampling))()
    slots = jax.jit(lambda: rollout_in_slots(model, *prompts, keys, sampling, 4, 2))()
    same(whole, plain)
    same(slots, plain)


def test_chunks_of_rows(tiny, prompts):
    model, sampling = tiny(), Sampling(max_new_tokens=9)
    ten = tuple(x[:10] for x in prompts)
    plain = answers(model, ten, sampling=sampling)
    same(answers(model, ten, sampling=sampling, slots=5), plain)
    with pytest.raises(InputError, match=r"slots \(4\) must divide the 10 prompts"):
        answers(model, ten, sampling=sampling, slots=4)
    with pytest.raises(InputError, match="at most the 4 slots"):
        answers(model, ten, sampling=sampling, slots=4, refill=5)


def test_the_cache_is_there_once(tiny, prompts):
    """Its size is added by a column more, and not twice: nothing copies it."""
    model = tiny(num_key_value_heads=4, head_dim=64)
    keys, S, row = row_keys(jax.random.key(0), jnp.arange(B)), 8, 2 * 2 * 4 * 64 * 4

    def temporaries(length):
        run = partial(rollout_in_slots, sampling=Sampling(max_new_tokens=length), slots=S, refill=4)
        program = jax.jit(run).lower(model, *prompts, keys).compile()
        return program.memory_analysis().temp_size_in_bytes

    added = (temporaries(1024) - temporaries(512)) / 512
    assert S * row <= added < 1.5 * S * row
