"""Selection of prompts by reward variance (ChatGLM-RLHF, arXiv 2404.00934, section 3).

A prompt whose answers all score alike teaches a policy nothing. K answers to each prompt are drawn
and scored, and the prompts whose scores spread most are kept.

Dims: N prompts, K answers to each.
"""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from glm_jax import configuration
from glm_jax.checkpoint.pretrained import load_pretrained
from glm_jax.configuration import configuration as configured
from glm_jax.configuration import required
from glm_jax.data import records
from glm_jax.data.records import Prompt, Sample
from glm_jax.errors import InputError
from glm_jax.model import GLM
from glm_jax.sampling import Sampling
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import sample
from glm_jax.train.batched import score_samples
from glm_jax.train.progress import console
from glm_jax.train.run_folder import claim
from glm_jax.train.sample import SampleConfig


@configured
class SelectionConfig:
    run: str = ""
    "the run's folder; the kept prompts come to lie in it as `prompts.jsonl`"
    model: str = ""
    "folder of the model that answers, as a rule the SFT model"
    reward_model: str = ""
    prompts: str = ""
    "file of prompts to choose from"
    samples: Annotated[int, Field(ge=2)] = 8
    "K: answers to each prompt"
    sampling: Sampling = Sampling()
    threshold: PositiveFloat | None = None
    "prompts are kept whose K scores have a standard deviation above it; or"
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    "this share of the prompts is kept, those of the largest standard deviation"
    max_prompt: Annotated[int, Field(ge=4)] = 128
    "tokens; longer prompts are cut from the left, and counted"
    batch_size: PositiveInt = 128
    "answers that are drawn and scored at once"
    seed: NonNegativeInt = 0

    def __post_init__(self):
        if (self.threshold is None) == (self.keep is None):
            raise InputError("give one of `threshold` and `keep`, which say what stays")


def run(config: SelectionConfig) -> Path:
    """Writes the kept prompts, and table.jsonl about all; returns the path of the kept ones.

    Goes on where an earlier call was cut off; another `threshold` or `keep` in the same folder
    takes the answers that are there. Raises InputError when no prompt is kept.
    """
    required(config, "run", "model", "reward_model", "prompts")
    prompts = records.read(config.prompts, Prompt)
    tokenizer = Tokenizer.load(config.model)
    if Tokenizer.load(config.reward_model).fingerprint != tokenizer.fingerprint:
        raise InputError(f"{config.reward_model} has another tokenizer than {config.model}")
    done = (Path(config.run) / "samples.jsonl").exists()
    reward_model = None if done else load_pretrained(config.reward_model, "reward")
    folder = _claimed(config)
    scores_NxK = _scores(folder, config, prompts, tokenizer, reward_model)
    kept_N = selected(scores_NxK.std(axis=1), threshold=config.threshold, keep=config.keep)
    records.write(folder / "table.jsonl", _table(prompts, scores_NxK, kept_N))
    output = folder / "prompts.jsonl"
    if not kept_N.any():
        output.unlink(missing_ok=True)
        raise InputError(
            f"{config.prompts}: of {len(prompts)} prompts none has a standard deviation of its "
            f"scores above {config.threshold}; see {folder}/table.jsonl"
        )
    records.write(output, [prompt for prompt, kept in zip(prompts, kept_N, strict=True) if kept])
    for category, (kept, total) in counts(prompts, kept_N).items():
        console.print(f"{category}: kept {kept} of {total}", highlight=False, markup=False)
    console.print(f"wrote {kept_N.sum()} of {len(prompts)} prompts to {output}", highlight=False)
    return output


def selected(
    std_N: np.ndarray, *, threshold: float | None = None, keep: float | None = None
) -> np.ndarray:
    """Which prompts stay, bool [N]: those above the threshold, or the share `keep` of the largest.

    At least one stays of a share; of equal ones, the first.
    """
    if keep is None:
        return std_N > threshold
    most = np.argsort(-std_N, kind="stable")[: max(round(keep * len(std_N)), 1)]
    return np.isin(np.arange(len(std_N)), most)


def counts(prompts: list[Prompt], kept_N: np.ndarray) -> dict[str, tuple[int, int]]:
    """(kept, total) of each category."""
    names = [prompt.category or "(none)" for prompt in prompts]
    kept = Counter(name for name, stays in zip(names, kept_N, strict=True) if stays)
    return {name: (kept[name], total) for name, total in sorted(Counter(names).items())}


def _claimed(config: SelectionConfig) -> Path:
    """The run's folder; what alone may differ from the configuration in it says what stays."""
    file = Path(config.run) / "config.yaml"
    if file.exists():
        saved = configuration.load(SelectionConfig, file)
        claim(config.run, dataclasses.replace(config, threshold=saved.threshold, keep=saved.keep))
        configuration.save(config, file)
    return claim(config.run, config)


def _scores(
    folder: Path,
    config: SelectionConfig,
    prompts: list[Prompt],
    tokenizer: Tokenizer,
    reward_model: GLM | None,
) -> np.ndarray:
    """The scores of all answers, [N, K] float64; None will do for a model when all have one."""
    settings = SampleConfig(
        model=config.model, prompts=config.prompts, output=str(folder / "samples.jsonl"),
        n=config.samples, sampling=config.sampling, max_prompt=config.max_prompt,
        batch_size=config.batch_size, seed=config.seed,
    )  # fmt: skip

    def score(samples: list[Sample]) -> np.ndarray:
        width = config.max_prompt + config.sampling.max_new_tokens
        return score_samples(reward_model, tokenizer, samples, config.max_prompt, width)

    samples = records.read(sample.run(settings, "answers and scores", score), Sample)
    expected = [prompt.id for prompt in prompts for _ in range(config.samples)]
    if [drawn.id for drawn in samples] != expected:
        raise InputError(
            f"{config.prompts} is not the file that {settings.output} answers; "
            f"choose another folder than {folder}"
        )
    return np.array([drawn.score for drawn in samples], np.float64).reshape(-1, config.samples)


def _table(prompts: list[Prompt], scores_NxK: np.ndarray, kept_N: np.ndarray) -> list[dict]:
    return [
        {
            "id": prompt.id,
            "category": prompt.category,
            "n": len(scores_K),
            "mean": float(scores_K.mean()),
            "std": float(scores_K.std()),
            "min": float(scores_K.min()),
            "max": float(scores_K.max()),
            "kept": bool(kept),
        }
        for prompt, scores_K, kept in zip(prompts, scores_NxK, kept_N, strict=True)
    ]
