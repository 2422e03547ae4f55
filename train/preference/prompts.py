"""Prompts from file to file: what `data learn-quality` and `data prompts` do."""

from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from glm_jax.data import prompt_quality, records, rewriting
from glm_jax.data.prompts import DroppedPrompt, dropped_rows, filter_prompts, sample_by_category
from glm_jax.data.records import Prompt
from glm_jax.errors import InputError
from glm_jax.train.preference import files


def learn_quality(labels: str, output: str) -> None:
    """Trains the classifier of prompts on a file of labelled ones, and says what it is worth."""
    prompts = records.read(labels, Prompt)
    try:
        right = prompt_quality.cross_validated(prompts)
        classifier = prompt_quality.train(prompts)
    except InputError as error:
        raise InputError(f"{labels}: {error}") from None
    prompt_quality.save(classifier, output)
    for kind, share in right.items():
        print(f"{kind:20}{share:6.1%} right of those not trained on")
    print(f"wrote the classifier to {output}")


def filter_file(
    prompts: str,
    output: str,
    dropped: str | None = None,
    quality: str | None = None,
    min_characters: int = 2,
    n: int | None = None,
    seed: int = 0,
) -> None:
    """Writes the prompts that can be answered, at most n in equal parts by category, to `output`.

    The others go with their reasons to `dropped`, which is named after `output` if not given.
    """
    if n is not None and n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    if dropped is None:
        dropped = files.dropped_beside(output)
    files.check_files(prompts, output, dropped)
    rewriting.check_outputs([Path(output), Path(dropped)])
    found = records.read(prompts, Prompt)
    classifier = prompt_quality.load(quality) if quality else None
    kept, others = filter_prompts(found, min_characters=min_characters, classifier=classifier)
    if n is not None:
        taken = sample_by_category(kept, n, seed)
        stays = {id(prompt) for prompt in taken}
        others += [DroppedPrompt(prompt, "surplus") for prompt in kept if id(prompt) not in stays]
        kept = taken
    if not kept:
        raise InputError(f"{prompts}: of {len(others)} prompts none is left")
    records.write(dropped, dropped_rows(others))
    records.write(output, kept)
    _show(kept, others)
    print(f"wrote {len(kept)} prompts to {output}, {len(others)} with their reasons to {dropped}")


def _show(kept: list[Prompt], dropped: list[DroppedPrompt]) -> None:
    """Counts by category and reason."""
    fates = Counter((prompt.category or "(none)", "kept") for prompt in kept)
    fates.update((prompt.category or "(none)", reason) for prompt, reason in dropped)
    reasons = sorted({reason for _, reason in fates} - {"kept"})
    table = Table("category", *["kept", *(reason.replace("_", " ") for reason in reasons)])
    for category in sorted({category for category, _ in fates}):
        table.add_row(category, *(str(fates[category, fate]) for fate in ("kept", *reasons)))
    Console().print(table)
