"""Runs whose rewards are functions, and settings that are refused before anything is compiled."""

import numpy as np
import pytest
from ppo_example import example, logged, write_models

from glm_jax.errors import InputError
from glm_jax.train import ppo

FUNCTIONS = """
import jax.numpy as jnp

def letters(prompts, responses):
    assert all(prompt.id and prompt.prompt for prompt in prompts)
    return [text.count("o") - len(prompt.prompt[0]["content"])
            for prompt, text in zip(prompts, responses)]

def tokens(batch, answers):
    return jnp.sum(answers.mask, axis=1).astype(jnp.float32)

def column(batch, answers):
    return jnp.sum(answers.mask, axis=1, keepdims=True)

def short(prompts, responses):
    return [0.0]

number = 3
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = write_models(tmp_path_factory.mktemp("models"))
    (folder / "functions.py").write_text(FUNCTIONS)
    return folder


def configured(models, run, name, of="texts", **changes):
    function = {"function": f"{models}/functions.py:{name}", "of": of}
    return example(models, run, reward_model="", reward_function=function, **changes)


def test_a_function_of_texts_and_several_answers_to_a_prompt(models, tmp_path):
    """Prompts stand beside their own answers, in rollouts, reference answers and evaluations."""
    config = configured(
        models, tmp_path / "run", "letters", ppo__advantage="grpo", ppo__samples_per_prompt=3,
        ppo__iterations=2, eval__reward_model=None,
    )  # fmt: skip
    ppo.run(config)
    words = {row["id"]: row for name in ("prompts", "watched") for row in logged(
        models / f"{name}.jsonl")}  # fmt: skip
    rows = logged(tmp_path / "run/completions.jsonl")
    assert len(rows) == 2 * 4 * 3 and {row["sample"] for row in rows} == {0, 1, 2}
    for row in [*rows, *logged(next((tmp_path / "run/evaluation").iterdir()))]:
        prompt = words[row["id"]]["prompt"][0]["content"]
        assert row["score"] == row["text"].count("o") - len(prompt)
    for row in rows:  # the reference answer had the same prompt
        length = len(words[row["id"]]["prompt"][0]["content"])
        assert 0 <= row["reference_score"] + length <= 6 * 5


def test_a_function_of_tokens_is_part_of_the_program(models, tmp_path):
    config = configured(models, tmp_path / "run", "tokens", "tokens", ppo__iterations=2)
    seen = []
    ppo.run(config, lambda i, metrics, completions: seen.append(completions))
    for completions in seen:
        np.testing.assert_array_equal(completions.scores, completions.mask.sum(axis=1))


def test_a_score_that_is_no_number_is_skipped_and_counted(models, tmp_path):
    """One answer's score is NaN, once: its update is left out, and the run goes on."""
    source = "calls = []\n\ndef once(prompts, responses):\n    calls.append(1)\n"
    source += "    return [float('nan') if len(calls) == 5 and i == 0 else 1.0\n"
    source += "            for i in range(len(responses))]\n"
    (models / "once.py").write_text(source)
    function = {"function": f"{models}/once.py:once"}
    ppo.run(example(models, tmp_path / "run", reward_model="", reward_function=function,
                    eval__prompts=None, eval__reward_model=None))  # fmt: skip
    skipped = [row["update/skipped"] for row in logged(tmp_path / "run/metrics.jsonl")]
    assert sum(skipped) == 1 and len(skipped) == 6


def test_functions_that_are_none_or_return_too_little(models, tmp_path):
    for name, match in (("missing", "missing is no function"), ("number", "is no function")):
        with pytest.raises(InputError, match=match):
            ppo.run(configured(models, tmp_path / "run", name))
    with pytest.raises(InputError, match=r"must return \[4\] scores"):
        ppo.run(configured(models, tmp_path / "run", "column", "tokens"))
    config = configured(models, tmp_path / "run", "letters")
    for changes, match in (
        ({"reward_model": f"{models}/reward"}, "one source of rewards"),
        ({"reward_function": None}, "one source of rewards"),
        ({"max_prompt": 2045}, "max_prompt .* is beyond the 2048 positions"),
        ({"ppo__minibatches": 3}, "minibatches"),
        ({"ppo__sampling__top_p": 0.9}, "top_p"),
        ({"ppo__compute": "bfloat16", "ppo__old_log_probs": "sampled"}, "old_log_probs sampled"),
    ):
        with pytest.raises(InputError, match=match):
            of = {"function": config.reward_function.function}
            ppo.run(example(models, tmp_path / "run",
                            **({"reward_model": "", "reward_function": of} | changes)))  # fmt: skip
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="the reward function failed: it must return 4 scores"):
        ppo.run(configured(models, tmp_path / "other", "short"))
