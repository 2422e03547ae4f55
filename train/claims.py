"""What a run sets out to show, and whether its numbers show it."""

from typing import Any


def claims(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Each claim with its evidence; one that does not come out is said so."""
    found = [_win(values, "ppo", mode) for mode in ("greedy", "sampled")]
    found.append(_win(values, "dpo", "greedy"))
    if "balancing" in values:
        found += _balancing(values)
    curve = values["ppo"]["curve"]
    if len(curve) > 1:
        found.append(_rose(curve, "score", "The reward model's score rose during PPO"))
        if "utility" in curve[0]:
            found.append(_rose(curve, "utility", "The true utility rose with it"))
    return found


def _win(values: dict[str, Any], model: str, mode: str) -> dict[str, Any]:
    row = values["wins"][f"{model}_vs_sft"][mode]["all"]
    how = "greedily" if mode == "greedy" else "at temperature 1"
    return {
        "claim": f"{model.upper()} wins more often than it loses against SFT, {how}",
        "holds": row["low"] > 0,
        "evidence": f"by {values['wins_by']}: net {row['net']:+.3f} "
        f"[{row['low']:+.3f}, {row['high']:+.3f}] on {row['n']} prompts",
    }


def _balancing(values: dict[str, Any]) -> list[dict[str, Any]]:
    balanced, unbalanced = (values["reward"][f"{n}_by_truth"] for n in ("balanced", "unbalanced"))
    biased, control = (_gain(values["balancing"][name]) for name in ("biased", "control"))
    truth = balanced["truth_length_correlation"]
    gaps = [abs(row["length_correlation"] - truth) for row in (balanced, unbalanced)]
    return [
        {
            "claim": "With biased annotators, the balanced reward model beats the unbalanced one "
            "by truth",
            "holds": balanced["accuracy"] > unbalanced["accuracy"],
            "evidence": f"accuracy {balanced['accuracy']:.3f} against {unbalanced['accuracy']:.3f} "
            f"on {balanced['n']} pairs, gain {biased}; without bias {control}",
        },
        {
            "claim": "Its correlation with length is nearer to the truth's",
            "holds": gaps[0] < gaps[1],
            "evidence": f"balanced {balanced['length_correlation']:+.3f}, unbalanced "
            f"{unbalanced['length_correlation']:+.3f}, truth {truth:+.3f}",
        },
    ]


def _gain(row: dict[str, Any]) -> str:
    return f"{row['gain']:+.3f} [{row['ci95'][0]:+.3f}, {row['ci95'][1]:+.3f}]"


def _rose(curve: list[dict[str, Any]], key: str, claim: str) -> dict[str, Any]:
    first, last = curve[0], curve[-1]
    return {
        "claim": claim,
        "holds": last[key] > first[key],
        "evidence": f"{first[key]:+.3f} before, {last[key]:+.3f} after iteration "
        f"{last['iteration']}, KL {last['kl']:.2f} nats a response",
    }
