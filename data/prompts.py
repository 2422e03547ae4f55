"""Which prompts are put to people and to models: rules, quality, and categories in equal parts."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from glm_jax.data.prompt_quality import QualityClassifier, predict
from glm_jax.data.records import Prompt, draw, prompt_key, to_dict


class DroppedPrompt(NamedTuple):
    prompt: Prompt
    reason: str


def filter_prompts(
    prompts: Sequence[Prompt],
    *,
    min_characters: int = 2,
    classifier: QualityClassifier | None = None,
) -> tuple[list[Prompt], list[DroppedPrompt]]:
    """Kept prompts and dropped ones, both in the order given.

    Reasons, in this order: `short` (the last message has fewer letters and digits than
    `min_characters`), `duplicate`, and the kinds that the classifier tells from "clear". A prompt
    that says its own `quality` is believed.
    """
    found = [prompt.quality for prompt in prompts]
    if classifier is not None:
        told = predict(classifier, prompts)
        found = [said or kind for said, kind in zip(found, told, strict=True)]
    seen: set[str] = set()
    kept, dropped = [], []
    for prompt, quality in zip(prompts, found, strict=True):
        key = prompt_key(prompt.prompt)
        if sum(map(str.isalnum, prompt.prompt[-1]["content"])) < min_characters:
            dropped.append(DroppedPrompt(prompt, "short"))
        elif key in seen:
            dropped.append(DroppedPrompt(prompt, "duplicate"))
        elif quality not in (None, "clear"):
            dropped.append(DroppedPrompt(prompt, str(quality)))
        else:
            kept.append(prompt)
        seen.add(key)
    return kept, dropped


def sample_by_category(prompts: Sequence[Prompt], n: int, seed: int) -> list[Prompt]:
    """n prompts, of each category as many, in the order given.

    A category that has fewer gives all it has, and the others share what is left. Which prompts
    are taken is drawn by (seed, id), whatever else there is.
    """
    groups = defaultdict(list)
    for prompt in prompts:
        groups[prompt.category].append(prompt)
    taken: set[int] = set()
    room, smallest_first = n, sorted(groups.values(), key=len)
    for i, group in enumerate(smallest_first):
        share = min(len(group), -(-room // (len(groups) - i)))
        first = sorted(group, key=lambda prompt: (draw(seed, prompt.id), prompt.id))[:share]
        taken.update(id(prompt) for prompt in first)
        room -= share
    return [prompt for prompt in prompts if id(prompt) in taken]


def dropped_rows(dropped: Sequence[DroppedPrompt]) -> list[dict[str, Any]]:
    """One JSON object a dropped prompt, with its reason, for `records.write`."""
    return [{"reason": reason, **to_dict(prompt)} for prompt, reason in dropped]
