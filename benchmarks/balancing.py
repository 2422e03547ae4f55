"""What length balancing and the L2 term do to reward models, in the proving ground.

    python -m benchmarks.balancing [--seeds 0 1 2 3 4] [--run runs/balancing]

For each seed: a world, an SFT model, its responses, and what annotators who like length by so much
a token say of them; then reward models of all pairs, and of pairs balanced with one and with two
levels, all judged by the true utility. Prints one JSON object. Resumes where it was stopped.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from glm_jax.checkpoint.pretrained import load_pretrained
from glm_jax.configuration import load
from glm_jax.data import filters, records
from glm_jax.data.proving_ground.annotators import annotate
from glm_jax.data.records import Pair, Sample
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import pipeline, progress, reward, sft
from glm_jax.train.batched import score_samples
from glm_jax.train.evaluation_rewards import by_labels, by_truth
from glm_jax.train.pipeline import PipelineConfig
from glm_jax.train.preference.pairs import balance_pairs
from glm_jax.train.preparation import write_world
from glm_jax.train.statistics import accuracy, correlation

LIKINGS = (0.0, 0.02, 0.05)  # of length, utility a token
L2 = (0.0, 0.01, 0.1)
EPOCHS = (1.0, 6.0)
KINDS = {"filtered": None, "one_level": 1, "two_levels": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--run", type=Path, default=Path("runs/balancing"))
    parser.add_argument("overrides", nargs="*", help="of the quickstart's configuration")
    o = parser.parse_args()
    progress.console.stderr = True
    rows = [row for seed in o.seeds for row in measured(o.run / f"seed{seed}", seed, o.overrides)]
    print(json.dumps({"seeds": o.seeds, **summary(rows), "rows": rows}))


def measured(folder: Path, seed: int, overrides: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each reward model of a seed."""
    config = load(PipelineConfig, "quickstart", [*overrides, f"run={folder}", f"seed={seed}"])
    if not (folder / "data/tokenizer").exists():
        write_world(folder / "data", config.world, seed)
    config = pipeline.filled(config, folder)
    sft.run(config.sft)
    drawn = {split: samples(folder, config, split) for split in ("pairs", "pairs_test")}
    for liking in LIKINGS:
        for split, given in drawn.items():
            stem = folder / f"pairs/{split}.{liking}"
            if not stem.with_name(f"{stem.name}.filtered.jsonl").exists():
                tokenizer = Tokenizer.load(config.sft.tokenizer)
                pairs = annotate(given, length_bias=liking, seed=seed)
                kept, _ = filters.filter_pairs(pairs, min_agreement=0, add_up=False)
                for kind, levels in KINDS.items():
                    if levels is not None:
                        settings = {"buckets": config.buckets, "levels": levels, "seed": seed}
                        stays, *_ = balance_pairs(kept, tokenizer, **settings)
                        records.write(f"{stem}.{kind}.jsonl", stays)
                records.write(f"{stem}.filtered.jsonl", kept)
        for kind in KINDS:
            yield {
                "seed": seed, "liking": liking, "pairs": kind,
                **judged(folder, config, f"{liking}.{kind}", liking, {}),
            }  # fmt: skip
    for l2 in L2:
        for epochs in EPOCHS:
            changes = {"l2": l2, "epochs": epochs}
            name = f"{LIKINGS[-1]}.two_levels"
            yield {"seed": seed, **changes, **judged(folder, config, name, LIKINGS[-1], changes)}


def samples(folder: Path, config: PipelineConfig, split: str) -> list[Sample]:
    """Two responses to most prompts, four to some: as the quickstart draws them."""
    model = config.sft.run + "/model"
    few, many = f"pairs/{split}_samples", f"pairs/{split}_ranked_samples"
    drawn = pipeline.sample_prompts(folder, config, model, split, few, n=2)
    return drawn + pipeline.sample_prompts(folder, config, model, f"{split}_ranked", many, n=4)


def judged(
    folder: Path, config: PipelineConfig, pairs: str, liking: float, changes: dict[str, float]
) -> dict[str, Any]:
    """What a reward model of these pairs is worth."""
    name = "-".join([pairs, *(f"{key}{value}" for key, value in changes.items())])
    settings = pipeline.reward_config(folder, config, name, f"pairs.{pairs}")
    model = load_pretrained(reward.run(dataclasses.replace(settings, **changes), name))
    tokenizer = Tokenizer.load(settings.model)
    test = samples(folder, config, "pairs_test")
    truth = by_truth(model, tokenizer, test)
    lengths = truth.better_lengths_N - truth.worse_lengths_N
    held_out = records.read(folder / f"pairs/pairs_test.{liking}.two_levels.jsonl", Pair)
    labels = by_labels(model, tokenizer, held_out, settings.max_length)
    scores = score_samples(model, tokenizer, test)
    return {
        "trained_on": len(records.read(settings.pairs, Pair)),
        "accuracy": accuracy(truth.margins_N)["accuracy"],
        "length_correlation": correlation(truth.margins_N, lengths),
        "true_length_correlation": correlation(truth.utilities_N, lengths),
        "heldout_loss": float(np.mean(np.logaddexp(0, -labels.margins_N))),
        "mean": float(scores.mean()), "spread": float(scores.std()),
        "largest": float(np.abs(scores).max()),
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Balanced minus all pairs by the annotators' liking; and the L2 term's rows, as means."""
    balancing, l2 = {}, {}
    for liking in LIKINGS:
        of = {
            kind: [row for row in rows if row.get("liking") == liking and row["pairs"] == kind]
            for kind in KINDS
        }
        for kind in [kind for kind, levels in KINDS.items() if levels is not None]:
            both = list(zip(of[kind], of["filtered"], strict=True))
            balancing[f"{liking}, {kind}"] = {
                "accuracy": interval([a["accuracy"] - b["accuracy"] for a, b in both]),
                "distance_of_length_correlation": interval([off(a) - off(b) for a, b in both]),
            }
    for weight in L2:
        for epochs in EPOCHS:
            found = [row for row in rows if row.get("l2") == weight and row["epochs"] == epochs]
            l2[f"{weight} after {epochs:g}"] = {
                key: interval([row[key] for row in found])
                for key in ("mean", "spread", "largest", "heldout_loss", "accuracy")
            }
    return {"balancing": balancing, "l2": l2}


def off(row: dict[str, Any]) -> float:
    """How far the model's liking for length is from what the truth's would be."""
    return abs(row["length_correlation"] - row["true_length_correlation"])


def interval(values: list[float]) -> list[float]:
    """Mean, and half the width of its 95 % t interval, over seeds."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5 if n > 1 else np.nan
    return [round(float(np.mean(values)), 4), round(float(half), 4)]


if __name__ == "__main__":
    main()
