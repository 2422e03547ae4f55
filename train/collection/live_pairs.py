"""Answers that are sampled while people compare them: a model at the back of a collection."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from glm_jax.data.records import Prompt, Sample, prompt_key, read
from glm_jax.errors import InputError
from glm_jax.sampling import Sampling
from glm_jax.train import sample
from glm_jax.train.policy import load_policy

BATCH = 16  # answers at a time, so that the first pairs come soon


def sampler(
    model: str,
    prompts: str,
    sampling: Sampling,
    *,
    n: int = 2,
    max_prompt: int = sample.SampleConfig.max_prompt,
    seed: int = 0,
    known: Iterable[str] = (),
) -> Callable[[], list[Sample]]:
    """Each call samples the next few prompts of a file, n answers each; [] when there are no more.

    `known`: keys (`prompt_key`) of prompts that have their answers already. Raises InputError for
    what cannot be read, and for fewer than two answers a prompt.
    """
    if n < 2:
        raise InputError(f"--n {n}: a comparison needs at least 2 answers to a prompt")
    before = set(known)
    left = [p for p in read(prompts, Prompt) if prompt_key(p.prompt) not in before]
    policy, tokenizer = load_policy(model)
    at_once = max(1, BATCH // n)

    def more() -> list[Sample]:
        some = left[:at_once]
        if not some:
            return []
        drawn = sample.draw(
            policy, tokenizer, some, sampling, n=n, max_prompt=max_prompt, batch_size=at_once * n,
            seed=seed + len(left),
        )  # fmt: skip
        found = [replace(s, tokens=[], log_probs=[]) for s in next(drawn)]
        del left[:at_once]  # only now: what failed is asked again
        return found

    return more
