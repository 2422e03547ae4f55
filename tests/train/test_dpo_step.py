import jax
import numpy as np
import pytest

from glm_jax.data.batches import pair_arrays
from glm_jax.data.records import Pair, Sample
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import dpo, sft
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.update import start

response_log_probs = jax.jit(dpo.response_log_probs)

TOKENIZER = Tokenizer.word_level([f"w{i}" for i in range(12)])
PROMPT = [{"role": "user", "content": "w1 w2"}]


def pair(chosen, rejected):
    return Pair(id="0", prompt=PROMPT, chosen=chosen, rejected=rejected)


@pytest.fixture(scope="module")
def batch():
    pairs = [pair("w0", "w3 w4 w5"), pair("w6 w0 w7", "w8"), pair("w0 w9", "w10 w11")]
    return dpo.batch_of(pair_arrays(pairs, TOKENIZER, 16)[0], np.arange(3))


def test_log_probs_are_those_of_the_whole_responses(tiny, batch):
    """Prompt and pads out, EOS in: their sum is the supervised loss of the same rows."""
    model = tiny()
    log_probs = response_log_probs(model, batch)
    assert log_probs.shape == (6,)
    for row in range(6):
        alone = sft.SFTBatch(*(x[row : row + 1] for x in batch))
        np.testing.assert_allclose(log_probs[row], -jax.jit(sft.loss)(model, alone).sum, rtol=1e-5)
    assert batch.response.sum(axis=1).tolist() == [2, 4, 3, 4, 2, 3]


def test_training_starts_at_log_2_and_raises_the_margin(tiny, batch):
    optimiser = optimizer(OptimizerConfig(learning_rate=5e-3), 20)
    state, reference = start(tiny(), optimiser), tiny()
    found = []
    for _ in range(20):
        state, metrics = dpo.step(state, reference, batch, optimiser=optimiser, beta=0.5)
        found.append({name: float(value) for name, value in metrics.items()})
    assert found[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert found[0]["accuracy"] == 0.5 and found[0]["margin"] == pytest.approx(0.0, abs=1e-5)
    assert found[0]["grad_norm"] > 0.01
    assert found[-1]["accuracy"] == 1.0 and found[-1]["margin"] > 0.5
    margins = [metrics["margin"] for metrics in found]
    assert margins == sorted(margins)
    # the margin that counts is the model's: up for the chosen, down for the rejected
    moved = response_log_probs(state.model, batch) - response_log_probs(reference, batch)
    assert np.mean(moved[:3]) > np.mean(moved[3:])


def sample(prompt_id, text):
    return Sample(
        id=prompt_id, sample=0, prompt=PROMPT, text=text, tokens=[], log_probs=[], finish="stop"
    )


def test_pairs_are_the_best_against_the_worst_of_each_prompt():
    samples = [
        sample("a", "good"), sample("b", "same"), sample("a", "bad"), sample("a", "middling"),
        sample("b", "equal"), sample("c", "twice"), sample("c", "twice"), sample("d", "alone"),
    ]  # fmt: skip
    scores = np.array([2.0, 1.0, -1.0, 0.5, 1.0, 0.1, 0.2, 3.0])
    (found,) = dpo.label_pairs(samples, scores)
    assert (found.prompt_id, found.chosen, found.rejected) == ("a", "good", "bad")
