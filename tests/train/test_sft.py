import jax
import numpy as np
import pytest

from glm_jax.data.batches import sft_arrays
from glm_jax.data.records import Dialogue
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import sft
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.update import start

loss = jax.jit(sft.loss)

WORDS = [f"w{i}" for i in range(12)]
TOKENIZER = Tokenizer.word_level(WORDS)  # 20 tokens with the specials; pad == EOS == 0


def dialogue(prompt, response):
    message = {"role": "user", "content": prompt}
    return Dialogue(id="0", prompt=[message], response=response)


@pytest.fixture
def arrays():
    rows = [dialogue("w0 w1", "w2 w3"), dialogue("w4", "w5 w6 w7 w8"), dialogue("w9", "w10")]
    return sft_arrays(rows, TOKENIZER, 16)[0]


def test_the_loss_takes_the_response_and_its_end_alone(arrays):
    """Although the pads that follow the first EOS are EOS tokens too."""
    batch = sft.batch_of(arrays, np.arange(3))
    assert TOKENIZER.pad_id == TOKENIZER.eos_id
    for row, expected in enumerate(["w2 w3", "w5 w6 w7 w8", "w10"]):
        counted = batch.tokens[row][batch.loss_mask[row]].tolist()
        assert counted == [*TOKENIZER.encode(expected), TOKENIZER.eos_id]
        assert batch.mask[row].sum() == arrays.lengths_N[row]
    # where the response starts: right behind <|assistant|>
    first = np.argmax(batch.loss_mask, axis=1)
    before = batch.tokens[np.arange(3), first - 1]
    assert before.tolist() == [TOKENIZER.role_ids["assistant"]] * 3


def test_loss_equals_torch_on_the_same_logits(tiny, arrays):
    torch = pytest.importorskip("torch")
    model, batch = tiny(), sft.batch_of(arrays, np.arange(3))
    # logits of unit size, so that the tokens' losses differ
    model.head.set_value(model.head[...] * 50.0)
    labels = np.where(batch.loss_mask, batch.tokens, -100)[:, 1:]
    logits = np.array(jax.jit(GLM.__call__)(model, batch.tokens, batch.mask))[:, :-1]
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits).reshape(-1, 20), torch.tensor(labels).reshape(-1).long()
    )
    total = loss(model, batch)
    assert total.mean == pytest.approx(float(expected), rel=1e-5)
    assert total.count == 3 + 5 + 2 and abs(expected - np.log(20)) > 0.1


def test_loss_does_not_depend_on_pads_or_on_the_rows_beside_it(tiny, arrays):
    model = tiny()
    narrow = sft.batch_of(arrays, np.arange(3), widths=4)
    assert narrow.tokens.shape[1] == 12  # of 4, 8, 12, 16
    whole, cut = loss(model, sft.batch_of(arrays, np.arange(3))), loss(model, narrow)
    np.testing.assert_allclose(cut.mean, whole.mean, rtol=1e-6)
    thrice = [loss(model, sft.batch_of(arrays, np.full(3, row))) for row in range(3)]
    assert sum(total.count for total in thrice) == 3 * whole.count
    np.testing.assert_allclose(sum(total.sum for total in thrice), 3 * whole.sum, rtol=1e-6)


def test_a_few_steps_learn_the_responses(tiny, arrays):
    optimiser = optimizer(OptimizerConfig(learning_rate=1e-2), 60)
    state = start(tiny(), optimiser)
    found = []
    for _ in range(60):
        given = jax.tree.leaves(state)
        state, metrics = sft.step(state, sft.batch_of(arrays, np.arange(3)), optimiser=optimiser)
        found.append(float(metrics["loss"]))
    # fresh logits have unit variance: log V and a half, but for the few tokens
    assert np.log(20) < found[0] < np.log(20) + 1 and metrics["tokens"] == 10
    assert found[-1] < 0.1
    assert all(x.is_deleted() for x in given)  # the step wrote over the given state
