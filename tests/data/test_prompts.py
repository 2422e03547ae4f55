"""Which prompts stay, and what the classifier of their quality is worth."""

import json
from collections import Counter

import numpy as np
import pytest

from glm_jax.data import prompt_quality
from glm_jax.data.prompts import filter_prompts, sample_by_category
from glm_jax.data.proving_ground.unclear import KINDS, UNCLEAR, prompts_by_quality
from glm_jax.data.records import Prompt, read, write
from glm_jax.errors import InputError


def prompt(text, **fields):
    return Prompt(prompt=[{"role": "user", "content": text}], **{"id": text, **fields})


@pytest.mark.parametrize("seed", range(3))
def test_three_hundred_labels_tell_nine_of_ten_prompts_in_wordings_not_seen(seed):
    labelled, unseen = (
        prompts_by_quality(300, seed, "first"),
        prompts_by_quality(400, seed, "second"),
    )
    assert Counter(p.quality for p in unseen) == dict.fromkeys(KINDS, 100)
    classifier = prompt_quality.train(labelled)
    told = prompt_quality.predict(classifier, unseen)
    assert np.mean([kind == p.quality for kind, p in zip(told, unseen, strict=True)]) >= 0.9
    assert prompt_quality.cross_validated(labelled)["all"] >= 0.9


def test_no_wording_stands_in_both_sets():
    for kind in UNCLEAR.values():
        assert not set(kind["first"]) & set(kind["second"])
    first, second = (
        {p.prompt[0]["content"] for p in prompts_by_quality(400, 0, words) if p.quality == "clear"}
        for words in ("first", "second")
    )
    assert not first & second


def test_a_classifier_is_saved_without_a_pickle(tmp_path):
    prompts = prompts_by_quality(80, 0, "first")
    classifier = prompt_quality.train(prompts)
    prompt_quality.save(classifier, tmp_path / "made")
    assert {p.name for p in (tmp_path / "made").iterdir()} == {"classifier.json", "weights.npz"}
    loaded = prompt_quality.load(tmp_path / "made")
    assert prompt_quality.predict(loaded, prompts) == prompt_quality.predict(classifier, prompts)
    told = json.loads((tmp_path / "made/classifier.json").read_text())
    (tmp_path / "made/classifier.json").write_text(json.dumps(told | {"ngrams": [1, 2]}))
    with pytest.raises(InputError, match="train it again"):
        prompt_quality.load(tmp_path / "made")
    with pytest.raises(InputError, match="no classifier of prompts"):
        prompt_quality.load(tmp_path)


def test_two_kinds_are_enough_and_one_is_not():
    labelled = [p for p in prompts_by_quality(200, 0, "first") if p.quality in KINDS[:2]]
    classifier = prompt_quality.train(labelled)
    told = prompt_quality.predict(classifier, labelled)
    assert np.mean([kind == p.quality for kind, p in zip(told, labelled, strict=True)]) > 0.95
    with pytest.raises(InputError, match="all prompts are labelled 'clear'"):
        prompt_quality.train([p for p in labelled if p.quality == "clear"])
    with pytest.raises(InputError, match="field 'quality' is missing in the prompt 'hi'"):
        prompt_quality.train([*labelled, prompt("hi")])


def test_reasons_in_their_order():
    given = [
        prompt("."), prompt("你好"), prompt("你好", id="again"), prompt("tell me", quality="clear"),
        prompt("cat, dog, cat", quality="unclear_semantics"),
    ]  # fmt: skip
    kept, dropped = filter_prompts(given)
    assert [p.id for p in kept] == ["你好", "tell me"]
    assert [(d.prompt.id, d.reason) for d in dropped] == [
        (".", "short"), ("again", "duplicate"), ("cat, dog, cat", "unclear_semantics"),
    ]  # fmt: skip
    classifier = prompt_quality.train(prompts_by_quality(300, 0, "first"))
    bad = prompt("which bear will win next year ?", quality=None)
    assert [d.reason for d in filter_prompts([bad], classifier=classifier)[1]] == ["unanswerable"]


def test_categories_in_equal_parts_whatever_the_order():
    prompts = [
        prompt(f"{c}{i}", category=c) for c, n in (("a", 3), ("b", 50), ("c", 40)) for i in range(n)
    ]
    taken = sample_by_category(prompts, 24, seed=0)
    counts = Counter(p.category for p in taken)
    assert counts["a"] == 3 and len(taken) == 24 and {counts["b"], counts["c"]} <= {10, 11}
    turned = sample_by_category(prompts[::-1], 24, seed=0)
    assert {p.id for p in turned} == {p.id for p in taken}
    assert {p.id for p in sample_by_category(prompts, 24, seed=1)} != {p.id for p in taken}
    assert sample_by_category(prompts, 1000, seed=0) == prompts


def test_the_quality_is_a_field_of_the_record(tmp_path):
    write(tmp_path / "prompts.jsonl", prompts_by_quality(4, 0, "first"))
    assert [p.quality for p in read(tmp_path / "prompts.jsonl", Prompt)] == list(KINDS)
