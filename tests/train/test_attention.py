"""Training with attention by a kernel is training with the plain path, on one device and eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig, make_mesh, on_mesh
from glm_jax.sampling import Sampling
from glm_jax.sharding import placed, rows_split
from glm_jax.train import sft
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.ppo.hyperparameters import PPOHyperparameters
from glm_jax.train.ppo.iteration import init, step
from glm_jax.train.ppo.scores import PPOBatch
from glm_jax.train.scoring import in_dtype, token_log_probs
from glm_jax.train.sft import SFTBatch, SFTConfig
from glm_jax.train.update import MemoryConfig, start

B, T, LAST = 8, 12, 7
SHAPE = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 4}
SPLASH = MemoryConfig(attention="splash", remat="full")
# where the group of heads that a device needs is whole there, and where it is repeated
MESHES = [MeshConfig(fsdp=4, tensor=2), MeshConfig(fsdp=2, tensor=4)]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setattr("glm_jax.attention.INTERPRETED", True)


def texts() -> SFTBatch:
    """Rows with pads at one end, at the other, and at both."""
    rng, places = np.random.default_rng(0), np.arange(T)[None]
    mask = (places >= rng.integers(0, 4, (B, 1))) & (places < rng.integers(8, T + 1, (B, 1)))
    return SFTBatch(rng.integers(4, 20, (B, T), np.int32), mask, mask & (places > 4))


def passes(model, memory):
    """(log-probs of the answers, gradients of all weights)."""

    @jax.jit
    def both(model, texts):
        texts = rows_split(texts)

        def loss(model):
            model = in_dtype(model, "float32", memory.attention).rematerialised(memory.remat)
            log_probs = token_log_probs(model, texts.tokens, texts.mask, LAST)
            log_probs = jnp.where(texts.loss_mask[:, -LAST:], log_probs, 0.0)
            return jnp.sum(log_probs), log_probs

        (_, log_probs), gradients = jax.value_and_grad(loss, has_aux=True)(model)
        return log_probs, gradients

    return both(model, texts())


def close(found, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize(
    ("shape", "unrolled"), [(None, 12), (MESHES[0], 1), (MESHES[1], 1)], ids=str
)
def test_log_probs_and_gradients(tiny, monkeypatch, shape, unrolled):
    """Each layer by itself, of which the last computes the answer alone, or in a scan."""
    model = tiny(**SHAPE)
    expected = passes(model, MemoryConfig())
    monkeypatch.setattr("glm_jax.stack.UNROLLED", unrolled)
    mesh = shape and make_mesh(shape, [model.config])
    with on_mesh(mesh):
        close(passes(placed(model, mesh), SPLASH), expected)


def test_a_layerwise_update(tiny):
    # with so large an epsilon the step is in proportion to the gradient
    config = OptimizerConfig(learning_rate=1.0, epsilon=1.0, max_grad_norm=None)
    model, optimiser = tiny(**SHAPE), optimizer(config, 1)
    expected, metrics = sft.step(
        jax.tree.map(jnp.copy, start(model, optimiser)), texts(), optimiser=optimiser
    )
    mesh = make_mesh(MESHES[1], [model.config])
    memory = MemoryConfig(attention="splash", layerwise=True)
    with on_mesh(mesh):
        state = placed(start(model, optimiser), mesh)
        found, again = sft.step(state, texts(), optimiser=optimiser, memory=memory)
    close(found.model, expected.model)
    close(again, metrics)


def test_in_bfloat16_the_ratio_starts_at_1(tiny):
    """Old log-probs and the update's come of the same kernel."""
    config = PPOHyperparameters(
        sampling=Sampling(max_new_tokens=6, stop_ids=(1,)), iterations=1, batch_size=B, epochs=1,
        minibatches=1, samples_per_prompt=2, advantage="rloo", supervised_coefficient=0.0,
        compute="bfloat16", attention="splash",
    )  # fmt: skip
    prompts, mask, _ = (x[:, :6] for x in texts())
    batch = PPOBatch(prompts, mask, np.arange(B, dtype=np.int32), np.zeros(B, np.float32), None)
    reward = Partial(lambda batch, drawn: jnp.sum(drawn.tokens, axis=1).astype(jnp.float32))
    actor = tiny(hidden_size=64, num_hidden_layers=1, **SHAPE)
    _, metrics, _ = step(init(config, actor, actor, reward), batch)
    assert metrics["val/first_log_ratio"] == 0 and metrics["val/sampler_gap"] > 0


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match="cudnn is not made for float32: take compute bfloat16"):
        MemoryConfig(attention="cudnn", compute="float32")
    with pytest.raises(InputError, match="cudnn is not made for float32"):
        PPOHyperparameters(attention="cudnn", compute="float32")
    config = SFTConfig(run=str(tmp_path / "run"), data=("none.jsonl",), memory=SPLASH)
    with pytest.raises(InputError, match="attention splash is made for TPU, and this is CPU"):
        sft.run(config)
    assert not (tmp_path / "run").exists()
