"""Everything that a run's report says, measured: the values of report.json (docs/report.md).

Nothing here flows back: no checkpoint, iteration or setting is chosen by what is measured here.
"""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from glm_jax.checkpoint.pretrained import load_pretrained
from glm_jax.configuration import to_dict
from glm_jax.data import records
from glm_jax.data.records import Pair, Sample
from glm_jax.model import GLM
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import evaluation_policies as policies
from glm_jax.train import evaluation_rewards as rewards
from glm_jax.train.batched import score_samples
from glm_jax.train.claims import claims
from glm_jax.train.run_folder import read_json, read_rows

if TYPE_CHECKING:
    from glm_jax.train.pipeline import PipelineConfig


def evaluate(folder: Path, config: "PipelineConfig", reward_models: Sequence[str]) -> dict:
    """The values of report.json, without the timing."""
    tokenizer = Tokenizer.load(folder / "sft/model")
    models = {name: load_pretrained(folder / f"reward/{name}/model") for name in reward_models}
    values = {
        "title": config.title,
        "config": to_dict(config),
        "seed": config.seed,
        "environment": _environment(),
        **_policies(folder, config, tokenizer, models),
        **_rewards(folder, config, tokenizer, models),
        **_data(folder),
        "sft": {"train": read_rows(folder / "sft/metrics.jsonl")},
        "reward_training": {"train": read_rows(folder / "reward/balanced/metrics.jsonl")},
        "dpo": {"train": read_rows(folder / "dpo/metrics.jsonl")},
        "ppo": _ppo(folder / "ppo", config.world is not None),
    }
    return {**values, "claims": claims(values)}


def _policies(folder: Path, config, tokenizer: Tokenizer, models: dict[str, GLM]) -> dict:
    answers = {
        (model, mode): rewards.read_samples(folder / f"evaluation/{model}.{mode}.jsonl")
        for model in ("sft", "dpo", "ppo")
        for mode in policies.MODES
    }
    groups = [str(sample.category) for sample in answers["sft", "greedy"]]
    scored = {
        name: {
            key: score_samples(models[name], tokenizer, s, config.max_prompt)
            for key, s in answers.items()
        }
        for name in ("balanced", "heldout")
        if name in models
    }
    values = {
        "score": policies.means(scored["balanced"], groups),
        "lengths": policies.lengths(answers, config.max_new_tokens),
    }
    if "heldout" in scored:
        values["heldout_score"] = policies.means(scored["heldout"], groups)
    utilities = None
    if config.world is not None:
        utilities = {key: rewards.utilities_of(samples) for key, samples in answers.items()}
        values["utility"] = policies.means(utilities, groups)
    judge = scored["balanced"] if utilities is None else utilities
    return values | {
        "wins": policies.wins(judge, groups),
        "wins_by": "the reward model it was trained on" if utilities is None else "true utility",
        "samples": policies.side_by_side(answers, scored["balanced"], utilities),
    }


def _rewards(folder: Path, config, tokenizer: Tokenizer, models: dict[str, GLM]) -> dict:
    train = records.read(folder / "pairs/train.filtered.jsonl", Pair)
    rule = rewards.fit_length_rule(train, tokenizer)
    max_length = config.max_prompt + config.max_new_tokens
    pair = [name for name in models if name in ("balanced", "unbalanced")]
    result = {}
    if config.world is None:
        test = [p for p in records.read(folder / "data/pairs_test.jsonl", Pair) if not p.tie]
        labels = {"labels": test}
    else:
        labels = {
            "annotators": records.read(folder / "pairs/test.filtered.jsonl", Pair),
            "balanced_labels": records.read(folder / "pairs/test.balanced.jsonl", Pair),
        }
    for label, pairs in labels.items():
        for name in pair:
            judged = rewards.by_labels(models[name], tokenizer, pairs, max_length)
            result[f"{name}_by_{label}"] = rewards.figures(judged, rule)
    if config.world is None:
        return {"reward": result}
    samples = rewards.read_samples(folder / "pairs/pairs_test_samples.jsonl")
    samples += rewards.read_samples(folder / "pairs/pairs_test_ranked_samples.jsonl")
    judged = {name: rewards.by_truth(model, tokenizer, samples) for name, model in models.items()}
    result |= {f"{name}_by_truth": rewards.figures(row, rule) for name, row in judged.items()}
    first = [sample for sample in samples if sample.sample == 0]
    return {
        "reward": result,
        "balancing": {
            "biased": rewards.gain(judged["balanced"], judged["unbalanced"]),
            "control": rewards.gain(judged["control_balanced"], judged["control_unbalanced"]),
        },
        "filler_probe": rewards.filler_probe(models, tokenizer, first),
    }


def _ppo(folder: Path, truth: bool) -> dict[str, Any]:
    """What the run itself has logged, and the over-optimisation figure."""
    best = folder / "best.json"
    return {
        "train": read_rows(folder / "metrics.jsonl"),
        "curve": _curve(folder, truth),
        "alarms": [
            {"iteration": row["step"], "alarm": row["alarm"], "message": row["message"]}
            for row in read_rows(folder / "alarms.jsonl")
        ],
        "best": read_json(best) if best.exists() else None,
        "reference_score": read_json(folder / "reference.json")["mean"],
    }


def _curve(folder: Path, truth: bool) -> list[dict]:
    """One point for each evaluation during PPO, of its sampled answers."""
    points: list[dict[str, Any]] = []
    names = "kl", "score", "score_minus_reference", "heldout_score", "length", "truncated"
    for row in read_rows(folder / "evaluation.jsonl"):
        point = {"iteration": row["step"]}
        point |= {n: row[f"eval/sampled/{n}"] for n in names if f"eval/sampled/{n}" in row}
        if truth:
            file = folder / f"evaluation/{row['step']:05d}.jsonl"
            sampled = [answer["mode"] == "sampled" for answer in read_rows(file)]
            utilities_N = rewards.utilities_of(records.read(file, Sample))
            point["utility"] = float(np.mean(utilities_N[sampled]))
        points.append(point)
    return points


def _data(folder: Path) -> dict:
    told = read_json(folder / "pairs/train.json")
    sets = {
        "supervised": read_json(folder / "sft/counts.json"),
        "pairs": read_json(folder / "reward/balanced/counts.json"),
        "DPO pairs": read_json(folder / "dpo/counts.json"),
        "prompts": read_json(folder / "ppo/counts.json")["prompts"],
    }
    counts = {
        name if group == "all" else f"{name}: {group}": row
        for name, groups in sets.items()
        for group, row in groups.items()
    }
    return {"filters": told["filters"]["all"], "balance": told["balance"], "counts": counts}


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "jax": version("jax"),
        "jaxlib": version("jaxlib"),
        "flax": version("flax"),
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
    }
