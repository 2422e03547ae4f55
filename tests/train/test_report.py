"""The report page and the closing table, from invented numbers of the real shape."""

from __future__ import annotations

import io
import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from rich.console import Console

from glm_jax.errors import InputError
from glm_jax.train import report
from glm_jax.train.report_schema import Report

FAMILIES = ("all", "creative", "qa", "roleplay", "arithmetic", "json", "identity")
MODELS = {"sft": 0.0, "dpo": 0.1, "ppo": 0.22}
MODES = {"greedy": 0.0, "sampled": -0.12}
VOID = {"meta", "link"}  # elements without an end tag
HOSTILE = "</pre></p><script>alert(1)</script>&amp;\"'\x00\ud800\x1b[2J"


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


class Page(HTMLParser):
    """Keeps the text and the attributes of a page, and refuses one whose tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def written(folder: Path, values: Any) -> str:
    (folder / "report.json").write_text(json.dumps(values), encoding="utf-8")
    return report.write(folder).read_text(encoding="utf-8")


def test_page_is_whole_well_formed_and_needs_nothing_else(tmp_path):
    text = written(tmp_path, example())
    page = Page(text)
    assert "://" not in text and "script" not in page.tags
    for name, value in page.attributes:
        if name in ("href", "src", "action", "data"):
            assert value.startswith("#") or value == "data:,"
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    links = [v[1:] for name, v in page.attributes if name == "href" and v.startswith("#")]
    assert set(links) | set(re.findall(r"url\(#(\w+)\)", text)) <= set(ids)
    assert (
        page.tags.count("svg")
        == page.tags.count("figure")
        == len(re.findall("<svg[^>]*><title>", text))
    )
    assert page.tags.count("table") == page.tags.count("caption")
    assert len(text) < 1_500_000
    assert list(p.name for p in tmp_path.iterdir() if p.suffix != ".json") == ["report.html"]


def test_same_numbers_give_the_same_page(tmp_path):
    assert written(tmp_path, example()) == written(tmp_path, example())


def test_numbers_reach_page_and_terminal(tmp_path):
    values = example()
    row = values["wins"]["ppo_vs_sft"]["greedy"]["all"]
    row |= {"win": 0.4321, "tie": 0.5, "lose": 0.0679, "net": 0.3642, "low": 0.3, "high": 0.4284}
    text = Page(written(tmp_path, values)).text
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report.table(values, tmp_path))
    terminal = console.export_text()
    assert "43.2 / 50.0 / 6.8" in text
    for shown in ("+36.4", "+30.0 to +42.8", "does not"):
        assert shown in text and shown in terminal
    assert str(tmp_path / "report.html") in terminal.replace("\n", "")


def hostile(value: Any) -> Any:
    """Every text replaced, keys too where they are free."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, dict):
        return {k: hostile(v) for k, v in value.items()}
    return [hostile(v) for v in value] if isinstance(value, list) else value


def test_hostile_text_is_shown_not_run(tmp_path):
    values = hostile(example())
    values["utility"]["sft"]["greedy"][HOSTILE] = 0.5
    values["wins"]["ppo_vs_sft"]["greedy"][HOSTILE] = values["wins"]["ppo_vs_sft"]["greedy"]["all"]
    values["reward"]["balanced_by_truth"]["by_category"]["$x_{" + HOSTILE] = {"accuracy": 1, "n": 1}
    values["filler_probe"]["$\\frac{" + HOSTILE] = {"change": 0.1, "n": 3}
    values["timing"][HOSTILE] = 3.0
    text = written(tmp_path, values)
    page = Page(text)
    assert "script" not in page.tags and "<script>alert(1)</script>" in page.text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)
    Console(file=io.StringIO()).print(report.table(values))


def test_absent_blocks_leave_no_trace(tmp_path):
    whole = example()
    for keys in ([], *([key] for key in whole), [k for k in whole if k != "samples"]):
        values = {k: whole[k] for k in keys}
        page = Page(written(tmp_path, values))
        headings = page.tags.count("h2")
        assert headings == page.tags.count("a") <= (2 if len(keys) < 2 else 10)
        report.table(values)
    assert "None" not in Page(written(tmp_path, {})).text


def test_null_numbers_are_dashes(tmp_path):
    values = example()
    values["ppo"]["train"][3]["objective/kl"] = None
    values["reward"]["balanced_by_truth"] |= {"length_correlation": None, "ci95": [None, None]}
    values["wins"]["ppo_vs_sft"]["greedy"]["all"] |= {"low": None, "high": None}
    assert "None" not in (text := Page(written(tmp_path, values)).text) and "nan" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "report.json: no such file"),
        ('{"seed": 1,\n "claims": [}', "report.json:2: not JSON"),
        ("[]", "report.json: the whole: "),
        ('{"claims": [{"claim": "x", "holds": "perhaps"}]}', "report.json: claims.0.holds: "),
        ('{"winz": {}}', "report.json: winz: "),
        ('{"wins": {"ppo_vs_sft": {"warm": {}}}}', "report.json: wins.ppo_vs_sft.warm"),
    ],
)
def test_bad_file_is_one_clear_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        report.write(tmp_path)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.glob("*.html"))


def keys(kind: Any, path: str = "") -> set[str]:
    """Paths of all leaves of the schema, as docs/report.md writes them."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        return set().union(*(keys(fields[f].annotation, f"{path}.{f}") for f in fields))
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return keys(arguments[0], path)
    if origin is dict and get_origin(arguments[0]) is Annotated:
        return keys(arguments[1], f"{path}.<{arguments[0].__metadata__[0]}>")
    if origin is list and keys(arguments[0]) != {""}:
        return keys(arguments[0], f"{path}[]")
    blocks = [a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)]
    return keys(blocks[0], path) if blocks else {path.removeprefix(".")}


def test_every_key_is_documented_and_every_documented_key_exists():
    text = (Path(__file__).parents[2] / "docs/report.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([^`]+)` \|", text, flags=re.M)
    assert len(set(documented)) == len(documented)
    assert set(documented) == keys(Report)
