"""Invented numbers of the shape of a real report.json."""

import random
from typing import Any

FAMILIES = ("all", "creative", "qa", "roleplay", "arithmetic", "json", "identity")
MODELS = {"sft": 0.0, "dpo": 0.1, "ppo": 0.22}
MODES = {"greedy": 0.0, "sampled": -0.12}


def example(seed: int = 0) -> dict[str, Any]:
    """A whole report.json, as a run in the proving ground would write it."""
    draw = random.Random(seed)

    def near(x: float, spread: float = 0.03) -> float:
        return round(x + draw.gauss(0, spread), 4)

    def outcome(net: float, n: int) -> dict[str, float]:
        net, half = near(net), 1.4 / n**0.5
        win, lose = 0.12 + max(net, 0.0), 0.12 + max(-net, 0.0)
        shares = {"win": win, "tie": 1 - win - lose, "lose": lose}
        return {**shares, "net": net, "low": net - half, "high": net + half, "n": n}

    def wins(gain: float) -> dict[str, Any]:
        return {
            mode: {f: outcome(gain + loss / 2, 640 if f == "all" else 107) for f in FAMILIES}
            for mode, loss in MODES.items()
        }

    def means(scale: float) -> dict[str, Any]:
        return {
            model: {
                mode: {f: near(scale * (0.7 + gain + loss)) for f in FAMILIES}
                for mode, loss in MODES.items()
            }
            for model, gain in MODELS.items()
        }

    def accuracy(value: float, n: int) -> dict[str, Any]:
        value, half = near(value, 0.02), 1 / n**0.5
        return {"accuracy": value, "ci95": [value - half, value + half], "n": n}

    def reward(value: float, correlation: float, length_only: float) -> dict[str, Any]:
        gaps = [(1, 3), (3, 5), (5, 8), (8, 12), (12, None)]
        return {
            **accuracy(value, 1200),
            "length_only": length_only,
            "length_correlation": correlation,
            "truth_length_correlation": 0.04,
            "by_category": {f: accuracy(value, 300) | {"length_only": 0.5} for f in FAMILIES[1:5]},
            "by_gap": [{"low": a, "high": b} | accuracy(value, 240) for a, b in gaps],
        }

    def lengths(mean: float) -> dict[str, Any]:
        counts = [max(0, round(90 - (edge - mean) ** 2 + draw.gauss(0, 5))) for edge in range(36)]
        histogram = {"edges": list(range(37)), "counts": counts}
        return {m: {"mean": mean, "truncated": 0.01, "histogram": histogram} for m in MODES}

    def training(steps: int, start: float, end: float) -> dict[str, Any]:
        decay = [end + (start - end) * 0.99**s for s in range(steps)]
        return {
            "train": [
                {
                    "step": s,
                    "loss": near(v, 0.02),
                    "accuracy": near(1 - v / 4),
                    "learning_rate": 1e-3,
                }
                for s, v in enumerate(decay)
            ]
        }

    balanced_sets = ("truth", "annotators", "balanced_labels")

    def answer() -> str:
        words = ("the", "small", "fox", "sings", "of", "rain", "near", "a", "quiet", "river")
        return " ".join(draw.choices(words, k=draw.randint(8, 20))) + " ."

    return {
        "title": "Quickstart: from nothing to an aligned model",
        "config": {"seed": seed, "sft": {"steps": 700, "learning_rate": 2e-3}, "ppo": {"kl": 0.05}},
        "seed": seed,
        "environment": {
            "python": "3.11.9",
            "jax": "0.10.2",
            "jaxlib": "0.10.2",
            "flax": "0.12.8",
            "platform": "cpu",
            "devices": ["cpu:0"],
            "cores": 2,
        },
        "timing": {"data": 2.1, "sft": 140.2, "annotate": 20.5, "reward_model": 61.0, "ppo": 92.4},
        "claims": [
            {
                "claim": "PPO beats SFT greedily",
                "holds": True,
                "evidence": "net +32.0 points, 95 % interval +27.1 to +36.9, 640 prompts",
            },
            {
                "claim": "With biased annotators the balanced reward model is the better one",
                "holds": True,
                "evidence": "68.1 % against 61.0 % of 1,200 pairs",
            },
            {
                "claim": "DPO beats SFT at temperature 1",
                "holds": False,
                "evidence": "net −0.8 points, 95 % interval −5.9 to +4.3, 640 prompts",
            },
        ],
        "wins": {"ppo_vs_sft": wins(0.33), "dpo_vs_sft": wins(0.06), "ppo_vs_dpo": wins(0.14)},
        "wins_by": "true utility",
        "utility": means(1.0),
        "score": means(1.8),
        "heldout_score": means(1.2),
        "lengths": {model: lengths(13 + 6 * gain) for model, gain in MODELS.items()},
        "reward": {
            **{
                f"balanced_by_{s}": reward(v, 0.02, 0.51)
                for s, v in zip(balanced_sets, (0.68, 0.62, 0.66), strict=True)
            },
            **{
                f"unbalanced_by_{s}": reward(v, 0.31, 0.62)
                for s, v in zip(balanced_sets, (0.61, 0.66, 0.6), strict=True)
            },
            "control_balanced_by_truth": reward(0.69, 0.03, 0.5),
            "control_unbalanced_by_truth": reward(0.73, 0.05, 0.5),
            "heldout_by_truth": reward(0.67, 0.02, 0.5),
        },
        "balancing": {
            "biased": {"gain": 0.04, "ci95": [0.01, 0.07], "n": 600},
            "control": {"gain": -0.02, "ci95": [-0.05, 0.01], "n": 600},
        },
        "filler_probe": {
            "balanced": {"change": -0.28, "ci95": [-0.33, -0.23], "n": 400},
            "unbalanced": {"change": 0.36, "ci95": [0.3, 0.42], "n": 400},
            "truth": {"change": -0.08, "ci95": [-0.08, -0.08], "n": 400},
        },
        "filters": {
            "tie": 210,
            "identical": 31,
            "cycle": 44,
            "empty": 2,
            "kept": 1713,
            "total": 2000,
        },
        "balance": {
            "rows": [
                {
                    "group": family,
                    "low": 2 * i + 1,
                    "high": 2 * i + 3,
                    "equal": 0,
                    "longer_better": 40 + i,
                    "shorter_better": 25,
                    "kept": 50,
                }
                for family in FAMILIES[1:5]
                for i in range(4)
            ],
            "longer_better_before": 0.617,
            "longer_better_after": 0.5,
        },
        "counts": {
            "sft": {
                "total": 5000,
                "dropped_prompt": 0,
                "truncated_prompt": 0,
                "truncated_response": 3,
            },
            "pairs": {
                "total": 1713,
                "dropped_prompt": 0,
                "truncated_prompt": 0,
                "truncated_response": 9,
            },
        },
        "sft": training(700, 4.0, 0.8),
        "reward_training": training(80, 0.69, 0.45),
        "dpo": training(60, 0.69, 0.52),
        "ppo": {
            "train": [
                {
                    "step": s,
                    "objective/kl": near(2.2 * s / 80, 0.1),
                    "objective/scores": near(1.4 * (1 - 0.97**s), 0.08),
                    "objective/rlhf_reward": near(1.3 * (1 - 0.97**s), 0.08),
                    "policy/clipfrac_avg": abs(near(0.05, 0.01)),
                    "loss/value_avg": near(0.4 * 0.95**s + 0.1, 0.01),
                    "val/explained_variance": near(0.7 - 1.6 * 0.9**s, 0.05),
                    "length": near(13, 0.4),
                }
                for s in range(80)
            ],
            "curve": [
                {
                    "iteration": i,
                    "kl": 2.2 * i / 80,
                    "score": near(1.5 * i / 80),
                    "score_minus_reference": near(1.4 * i / 80),
                    "heldout_score": near(0.9 * (i / 80) ** 0.5),
                    "utility": near(0.6 + 0.4 * (i / 80) - 0.25 * (i / 80) ** 3, 0.01),
                    "length": near(13 + i / 60, 0.1),
                    "truncated": 0.01,
                }
                for i in range(0, 81, 8)
            ],
            "alarms": [
                {"iteration": 61, "alarm": "scores_apart", "message": "one rises, the other falls"}
            ],
            "best": {"iteration": 48, "by": "heldout_score", "score": 0.7, "kl": 1.3},
            "reference_score": 0.12,
        },
        "samples": [
            {
                "category": draw.choice(FAMILIES[1:]),
                "prompt": "write a poem about rain and a fox",
                **{model: answer() for model in MODELS},
                "utility": {model: near(0.7 + gain, 0.2) for model, gain in MODELS.items()},
                "score": {model: near(0.5 + gain, 0.4) for model, gain in MODELS.items()},
            }
            for _ in range(9)
        ],
    }
