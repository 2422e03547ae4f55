"""Answers for people who wait: a batch that failed is drawn again, and no prompt is left out."""

import pytest

from glm_jax.data import records
from glm_jax.data.proving_ground import world
from glm_jax.sampling import Sampling
from glm_jax.train.collection import live_pairs


def test_a_batch_that_failed_is_drawn_again(monkeypatch, tmp_path):
    prompts, file, failures = world.prompts("pairs", 20, 0), tmp_path / "prompts.jsonl", [False]
    records.write(file, prompts)

    def draw(policy, tokenizer, some, sampling, *, n, batch_size, **_):
        if len(some) < 8 and not failures.pop():
            failures.append(True)
            raise RuntimeError("out of memory")
        assert batch_size == 16
        made = [
            records.Sample(id=p.id, sample=k, prompt=p.prompt, text=str(k), tokens=[1],
                           log_probs=[-1.0], finish="stop")
            for p in some for k in range(n)
        ]  # fmt: skip
        yield made

    monkeypatch.setattr(live_pairs.sample, "draw", draw)
    monkeypatch.setattr(live_pairs, "load_policy", lambda model: (None, None))
    more = live_pairs.sampler("model", str(file), Sampling())
    assert [len(more()), len(more())] == [16, 16]
    with pytest.raises(RuntimeError):
        more()
    last = more()
    assert [sample.id for sample in last[::2]] == [prompt.id for prompt in prompts[16:]]
    assert not last[0].tokens and more() == []
