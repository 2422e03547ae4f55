"""The whole of ChatGLM-RLHF in one command: each stage reads files and writes files.

    data -> SFT -> responses -> pairs -> reward models -> DPO, PPO -> evaluation -> report

A stage whose results are there is not run again, and one that was cut off goes on where it was.
"""

import dataclasses
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from glm_jax.checkpoint.pretrained import load_pretrained
from glm_jax.configuration import configuration
from glm_jax.data import records
from glm_jax.data.balance import LEVELS
from glm_jax.data.records import Pair, Sample
from glm_jax.errors import InputError
from glm_jax.sampling import Sampling
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import dpo, evaluation, ppo, reward, sample, sft
from glm_jax.train.batched import score_samples
from glm_jax.train.dpo import DPOConfig
from glm_jax.train.ppo import PPOConfig
from glm_jax.train.preference.pairs import filter_and_balance
from glm_jax.train.preparation import FilesConfig, WorldConfig, read_files, write_files, write_world
from glm_jax.train.progress import console
from glm_jax.train.reports import pipeline_report
from glm_jax.train.reward import RewardConfig
from glm_jax.train.run_folder import begun, claim, read_json, write_json
from glm_jax.train.sample import SampleConfig
from glm_jax.train.sft import SFTConfig


@configuration
class PipelineConfig:
    """Every stage's configuration; the pipeline fills in their paths and seeds."""

    run: str
    title: str = "glm-rlhf"
    seed: NonNegativeInt = 0
    world: WorldConfig | None = None
    "the proving ground as the source of data; or"
    files: FilesConfig | None = None
    "files"
    max_prompt: Annotated[int, Field(ge=4)] = 128
    "tokens; longer prompts are cut from the left, and counted"
    max_new_tokens: PositiveInt = 128
    "of a response, the end token counted"
    buckets: PositiveInt = 8
    "of length differences, in each group, for balancing"
    levels: PositiveInt = LEVELS
    "parts of a bucket, by both lengths together, that are balanced apart"
    label_samples: Annotated[int, Field(ge=2)] = 4
    "responses to each RL prompt that the reward model ranks for DPO"
    sample_batch_size: PositiveInt = 128
    sft: SFTConfig = SFTConfig()
    reward: RewardConfig = RewardConfig()
    dpo: DPOConfig = DPOConfig()
    ppo: PPOConfig = PPOConfig()

    def __post_init__(self):
        if (self.world is None) == (self.files is None):
            raise InputError("give one source of data: `world`, or `files`")


def run(config: PipelineConfig) -> Path:
    """Runs, or resumes, every stage; returns the path of the report."""
    folder = Path(config.run)
    prepared = begun(folder, config) and (folder / "data/tokenizer").exists()
    inputs = read_files(config.files) if config.files and not prepared else None
    claim(folder, config)
    config = filled(config, folder)
    with _stage(folder, "data"):
        if not prepared and config.world:
            write_world(folder / "data", config.world, config.seed)
        elif not prepared:
            write_files(folder / "data", config.files, inputs, config.seed)
    with _stage(folder, "sft"):
        sft.run(config.sft)
    with _stage(folder, "pairs"):
        if config.world is not None:
            _collect(folder, config)
        else:
            _balance(folder, config, "train", records.read(folder / "data/pairs.jsonl", Pair))
    with _stage(folder, "reward models"):
        for name, pairs in reward_models(config).items():
            label = f"reward model ({name.replace('_', ', ')})"
            reward.run(reward_config(folder, config, name, pairs), label)
    with _stage(folder, "dpo"):
        _label(folder, config)
        dpo.run(config.dpo)
    with _stage(folder, "ppo"):
        ppo.run(config.ppo)
    with _stage(folder, "evaluation"):
        for model in ("sft", "dpo", "ppo"):
            for mode in ("greedy", "sampled"):
                sample_prompts(
                    folder, config, f"{folder}/{model}/model", "eval", f"evaluation/{model}.{mode}",
                    temperature=0.0 if mode == "greedy" else 1.0,
                )  # fmt: skip
        values = evaluation.evaluate(folder, config, [*reward_models(config)])
    write_json(folder / "report.json", {**values, "timing": _timing(folder)})
    page = pipeline_report.write(folder)
    console.print(pipeline_report.table(read_json(folder / "report.json"), folder))
    return page


def reward_models(config: PipelineConfig) -> dict[str, str]:
    """The reward models by name, each with the file of pairs that it learns from.

    The first is the run's own: DPO's pairs and PPO's rewards come from it.
    """
    models = {"balanced": "train.balanced", "unbalanced": "train.filtered"}
    if config.world is not None:
        models |= {
            "heldout": "heldout.balanced",
            "control_balanced": "control.balanced",
            "control_unbalanced": "control.filtered",
        }
    return models


def filled(config: PipelineConfig, folder: Path) -> PipelineConfig:
    """The configuration with every stage's paths and seed."""
    data, model = folder / "data", str(folder / "sft/model")
    files, seed = (str(data / "sft.jsonl"),), config.seed
    max_length = config.max_prompt + config.max_new_tokens
    watched = {"prompts": str(data / "watch_prompts.jsonl")}
    if config.world is not None:
        watched["reward_model"] = str(folder / "reward/heldout/model")
    sampling = dataclasses.replace(config.ppo.ppo.sampling, max_new_tokens=config.max_new_tokens)
    return dataclasses.replace(
        config,
        sft=dataclasses.replace(
            config.sft, run=str(folder / "sft"), data=files, tokenizer=str(data / "tokenizer"),
            max_length=max_length, seed=seed,
        ),
        dpo=dataclasses.replace(
            config.dpo, run=str(folder / "dpo"), model=model, max_length=max_length, seed=seed,
            pairs=str(folder / "pairs/labelled.jsonl"),
        ),
        ppo=dataclasses.replace(
            config.ppo, run=str(folder / "ppo"), model=model, seed=seed, supervised=files,
            reward_model=str(folder / "reward/balanced/model"), max_prompt=config.max_prompt,
            max_length=max_length, prompts=str(data / "rl_prompts.jsonl"),
            ppo=dataclasses.replace(config.ppo.ppo, sampling=sampling),
            eval=dataclasses.replace(config.ppo.eval, **watched),
        ),
    )  # fmt: skip


def reward_config(folder: Path, config: PipelineConfig, name: str, pairs: str) -> RewardConfig:
    return dataclasses.replace(
        config.reward,
        run=str(folder / "reward" / name),
        model=str(folder / "sft/model"),
        pairs=str(folder / f"pairs/{pairs}.jsonl"),
        max_length=config.max_prompt + config.max_new_tokens,
        seed=config.seed,
    )


def sample_prompts(
    folder: Path, config: PipelineConfig, model: str, prompts: str, name: str, *,
    n: int = 1, temperature: float = 1.0,
) -> list[Sample]:  # fmt: skip
    settings = SampleConfig(
        model=model, prompts=str(folder / f"data/{prompts}_prompts.jsonl"),
        output=str(folder / f"{name}.jsonl"), n=n, max_prompt=config.max_prompt,
        batch_size=config.sample_batch_size, seed=config.seed,
        sampling=Sampling(max_new_tokens=config.max_new_tokens, temperature=temperature),
    )  # fmt: skip
    return records.read(sample.run(settings, f"responses ({name})"), Sample)


def _collect(folder: Path, config: PipelineConfig) -> None:
    """Responses to the pairs' prompts, and what the simulated annotators think of them."""
    from glm_jax.data.proving_ground.annotators import annotate

    if (folder / "pairs/test.filtered.jsonl").exists():
        return
    bias, model = config.world.length_bias, config.sft.run + "/model"
    splits = {"train": ("pairs", bias), "heldout": ("pairs_heldout", bias)}
    splits |= {"control": ("pairs", 0.0), "test": ("pairs_test", bias)}
    for name, (split, length_bias) in splits.items():
        samples = sample_prompts(folder, config, model, split, f"pairs/{split}_samples", n=2)
        ranked = f"{split}_ranked"
        samples += sample_prompts(folder, config, model, ranked, f"pairs/{ranked}_samples", n=4)
        pairs = annotate(samples, length_bias=length_bias, seed=config.seed)
        _balance(folder, config, name, pairs)


def _balance(folder: Path, config: PipelineConfig, name: str, pairs: list[Pair]) -> None:
    """Writes pairs/<name>.{filtered,balanced,dropped}.jsonl, and what was done as .json."""
    tokenizer = Tokenizer.load(folder / "data/tokenizer")
    filter_and_balance(
        pairs, tokenizer, folder / "pairs" / name,
        buckets=config.buckets, levels=config.levels, seed=config.seed,
    )  # fmt: skip


def _label(folder: Path, config: PipelineConfig) -> None:
    """DPO's pairs: the best against the worst response, as the reward model sees them."""
    output = Path(config.dpo.pairs)
    if output.exists():
        return
    samples = sample_prompts(
        folder, config, config.dpo.model, "rl", "pairs/rl_samples", n=config.label_samples
    )
    model = load_pretrained(config.ppo.reward_model)
    scores = score_samples(model, Tokenizer.load(config.dpo.model), samples, config.max_prompt)
    records.write(output, dpo.label_pairs(samples, scores))


@contextmanager
def _stage(folder: Path, name: str) -> Iterator[None]:
    """Says what runs, and adds the seconds it took to timing.json."""
    console.rule(name, align="left")
    start = time.monotonic()
    yield
    timing = _timing(folder)
    timing[name] = round(timing.get(name, 0.0) + time.monotonic() - start, 1)
    write_json(folder / "timing.json", timing)


def _timing(folder: Path) -> dict[str, float]:
    file = folder / "timing.json"
    return read_json(file) if os.path.exists(file) else {}
