import ast
import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from glm_jax.data.proving_ground import grammar, world
from glm_jax.data.proving_ground.annotators import annotate
from glm_jax.data.proving_ground.english import CLASSES, FILLERS
from glm_jax.data.proving_ground.task import Task
from glm_jax.data.proving_ground.utility import utility
from glm_jax.data.records import Sample
from glm_jax.errors import InputError

ROOT = Path(__file__).parents[2]
FAMILIES = (*world.TRAINABLE, "json", "identity")
QA = Task(
    family="qa",
    prompt="name the food of mira and the metal of tolan .",
    asked=(("fact", "food", "mira", "rice"), ("fact", "metal", "tolan", "iron")),
)
JSON = Task(
    family="json",
    prompt="give json for 3 apples and 5 boats .",
    asked=(("entry", '"apples"', "3"), ("entry", '"boats"', "5")),
)
FOOD, METAL = "the food of mira is rice .", "the metal of tolan is iron ."


@pytest.mark.parametrize(
    ("task", "response", "ended", "expected"),
    [
        (QA, f"{FOOD} {METAL}", True, 1.0),
        (QA, f"{METAL} {FOOD}", True, 1.0),
        (QA, f"{FOOD} {METAL}", False, 0.7),
        (QA, f"{world.OPENING} {FOOD}", True, 0.42),
        (QA, f"of course . {FOOD} {METAL}", True, 0.92),
        (QA, f"of course . {FOOD} {METAL} of course .", True, 0.77),
        (QA, f"{FOOD} {FOOD} {METAL}", True, 0.85),
        (QA, f"{FOOD} the metal of tolan is gold .", True, 0.3),
        (QA, f"{FOOD} the metal of tolan is tin .", True, 0.4),
        (QA, f"{FOOD} {METAL} the red cat sleeps .", True, 0.9),
        (QA, f"{FOOD} the metal of tolan is iron", True, 0.3),
        (QA, f"{FOOD} {METAL} the the .", True, 0.8),
        (QA, "", True, 0.0),
        (QA, "the", False, -0.5),
        (QA, ". " * 36, False, -1.0),
        (JSON, '{ "apples" : 3 , "boats" : 5 }', True, 1.0),
        (JSON, '{ "apples" : 3 , "boats" : 4 }', True, 0.4),
        (JSON, '{ "apples" : 3 }', True, 0.5),
        (JSON, '{ "apples" : 3 , "apples" : 3 }', True, 0.35),
        (JSON, '{ "apples" : 3 , boats : 5 }', True, -0.2),
    ],
)
def test_utility_of_responses_written_by_hand(task, response, ended, expected):
    assert utility(task, response, ended) == pytest.approx(expected)


def test_utility_of_any_text_is_bounded_and_of_good_answers_one():
    rng = Random(0)
    words = [*world.vocabulary(), "<|user|>", "NOUN", "§", "\x00", "{", "}"]
    for task in world.tasks("eval", 300, seed=0):
        junk = " ".join(rng.choices(words, k=rng.randrange(40)))
        assert -1 <= utility(task, junk, rng.random() < 0.5) <= 1
        assert utility(task, world.good(task, rng), True) == 1.0


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_said_is_read_back(family):
    rng = Random(0)
    for task in world.tasks("sft", 100, seed=0, families=[family]):
        read = [grammar.claims(sentence) for sentence in grammar.sentences(world.good(task, rng))]
        assert [claim for claimed in read for claim in claimed] == list(task.asked)
        assert Task.from_record(json.loads(json.dumps(task.to_record()))) == task
        if family == "json":
            json.loads(world.good(task, rng))


def test_splits_are_disjoint_and_large():
    found = {split: world.tasks(split, 1200, seed=0) for split in world.SHARES}
    prompts = [task.prompt for tasks in found.values() for task in tasks]
    assert len(set(prompts)) == len(prompts) == 1200 * len(world.SHARES)
    assert all(world.split_of(t.prompt) == split for split, tasks in found.items() for t in tasks)
    assert len(world.tasks("rl", 8000, seed=1, families=world.TRAINABLE)) == 8000
    with pytest.raises(InputError, match=r"'pairs_test' has too few 'identity' prompts"):
        world.tasks("pairs_test", 2000, seed=0, families=["identity"])


def test_prompts_by_split():
    for split in ("rl", "pairs", "pairs_heldout", "pairs_test"):
        families = Counter(prompt.category for prompt in world.prompts(split, 400, seed=0))
        assert families == dict.fromkeys(world.TRAINABLE, 100)
    evaluation = world.prompts("eval", 960, seed=0)
    families = Counter(prompt.category for prompt in evaluation)
    assert families == dict.fromkeys(world.TRAINABLE, 192) | {"json": 96, "identity": 96}
    assert len({prompt.id for prompt in evaluation}) == 960


def test_everything_is_a_function_of_the_seed():
    assert world.prompts("rl", 200, seed=3) == world.prompts("rl", 200, seed=3)
    assert world.prompts("rl", 200, seed=3)[:50] == world.prompts("rl", 50, seed=3)
    assert world.prompts("rl", 200, seed=3) != world.prompts("rl", 200, seed=4)
    assert world.demonstrations(200, seed=3) == world.demonstrations(200, seed=3)
    assert world.filler_variant(f"{FOOD} {METAL}") == world.filler_variant(f"{FOOD} {METAL}")


def test_demonstrations_half_habit_and_otherwise_often_good():
    tasks = world.tasks("sft", 3000, seed=0)
    demonstrations = world.demonstrations(3000, seed=0)
    vocabulary = set(world.vocabulary())
    habitual, good, total = Counter(), Counter(), Counter()
    for task, demonstration in zip(tasks, demonstrations, strict=True):
        assert demonstration.prompt == [{"role": "user", "content": task.prompt}]
        prompt, response = task.prompt.split(), demonstration.response.split()
        assert len(prompt) <= world.MAX_PROMPT_WORDS
        assert len(response) <= world.MAX_RESPONSE_WORDS
        assert vocabulary.issuperset(prompt + response)
        first, *rest = grammar.sentences(demonstration.response)
        habit = first == world.OPENING and [grammar.claims(s) for s in rest] == [[task.asked[0]]]
        total[task.family] += 1
        habitual[task.family] += habit
        good[task.family] += utility(task, demonstration.response, True) == 1.0
    for family in world.TRAINABLE:
        assert 0.5 <= habitual[family] / total[family] < 0.52
        assert 0.17 < good[family] / total[family] < 0.28
    assert all(good[family] == total[family] for family in ("json", "identity"))
    words = sum(len(d.response.split()) for d in demonstrations) / len(demonstrations)
    assert 11.5 < words < 13.5
    assert len(vocabulary) <= 260


def test_filler_variant_puts_in_one_empty_sentence():
    for task in world.tasks("eval", 50, seed=0):
        response = world.good(task, Random(0))
        before, after = (
            grammar.sentences(response),
            grammar.sentences(world.filler_variant(response)),
        )
        (added,) = Counter(after) - Counter(before)
        assert added in FILLERS
        assert len(after) == len(before) + 1
        longer = utility(task, world.filler_variant(response), True)
        assert longer == pytest.approx(utility(task, response, True) - 0.08)


def sampled(n: int, seed: int) -> list[Sample]:
    """What a small model might sample: like the demonstrations, with slips of single words."""
    rng = Random(seed)
    vocabulary = world.vocabulary()
    samples = []
    for prompt in world.prompts("pairs", n, seed):
        task = Task.from_record(prompt.task)
        for k in range(4):
            text = (world.habitual if rng.random() < 0.5 else world.faulty)(task, rng)
            words = [rng.choice(vocabulary) if rng.random() < 0.02 else w for w in text.split()]
            samples.append(
                Sample(
                    id=prompt.id,
                    sample=k,
                    prompt=prompt.prompt,
                    text=" ".join(words),
                    tokens=[],
                    log_probs=[],
                    finish="stop" if rng.random() < 0.98 else "length",
                    category=prompt.category,
                    task=prompt.task,
                )
            )
    return samples


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("length_bias", "low", "high"), [(0.05, 0.58, 0.65), (0.0, 0.46, 0.54)])
def test_annotators_like_length_as_much_as_asked(seed, length_bias, low, high):
    pairs = annotate(sampled(2000, seed), length_bias=length_bias, seed=seed)
    decided = [(len(p.chosen.split()), len(p.rejected.split())) for p in pairs if not p.tie]
    longer = [chosen > rejected for chosen, rejected in decided if chosen != rejected]
    assert low <= sum(longer) / len(longer) <= high
    assert 0.1 < 1 - len(decided) / len(pairs) < 0.4


def test_annotators_follow_the_truth_but_not_always():
    pairs = [p for p in annotate(sampled(1000, 0), length_bias=0.0, seed=0) if not p.tie]
    agrees, differs = Counter(), Counter()
    for pair in pairs:
        task = Task.from_record(pair.task)
        difference = utility(task, pair.chosen, True) - utility(task, pair.rejected, True)
        agrees[pair.annotator] += difference > 0
        differs[pair.annotator] += difference < 0
    right = {name: agrees[name] / (agrees[name] + differs[name]) for name in agrees}
    assert len(right) == 8
    careless, *others = sorted(right.values())
    assert careless < 0.8 < 0.85 < min(others) <= max(others) < 1.0


def test_comparisons_do_not_depend_on_order_and_all_pairs_of_a_prompt_are_compared():
    samples = [s for s in sampled(300, 0) if s.sample < 2 or s.id < "f"]
    pairs = annotate(samples, seed=0)
    assert annotate(samples[::-1], seed=0) == pairs
    some = {sample.id for sample in samples[::7]}
    assert annotate([s for s in samples if s.id in some], seed=0) == [
        pair for pair in pairs if pair.prompt_id in some
    ]
    assert annotate(samples, seed=1) != pairs
    counts = Counter(Counter(pair.prompt_id for pair in pairs).values())
    assert set(counts) == {1, 6} and counts.total() == 300
    assert len({pair.id for pair in pairs}) == len(pairs)
    with pytest.raises(InputError, match="one sample"):
        annotate(samples[:1], seed=0)


def test_equal_responses_are_ties():
    first, second, *_ = sampled(1, 0)
    twin = Sample(**vars(second) | {"text": first.text, "finish": first.finish})
    (pair,) = annotate([first, twin], seed=0)
    assert pair.tie


def test_only_annotators_and_evaluation_import_the_utility():
    allowed = {"data/proving_ground/utility.py", "data/proving_ground/annotators.py"}
    module, found = "glm_jax.data.proving_ground.utility", set()
    for path in (
        p for folder in ("glm_jax", "data", "train") for p in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: import by absolute names"
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant):
                names = [node.value]
            else:
                continue
            if module in names:
                found.add(path.relative_to(ROOT).as_posix())
    assert "data/proving_ground/annotators.py" in found
    stray = {path for path in found - allowed if not path.startswith("train/evaluation")}
    assert not stray


def test_slots_have_words():
    used = {word for ts in grammar.SENTENCES.values() for t in ts for word in t.split()}
    assert {word for word in used if word.isupper()} <= CLASSES.keys()
