"""The world: tasks of six families by split, as prompts and as demonstrations.

Every prompt asks for two things. Of the demonstrations of each trainable family exactly half share
one mediocre habit (an empty opening, and only the first thing asked); the others are good or have
independent random faults. JSON and identity are demonstrated well, and are in no pairs or
reinforcement-learning prompts: that is how they can be forgotten.
"""

import hashlib
from collections.abc import Sequence
from random import Random
from typing import Literal

from glm_jax.data.proving_ground.english import ABOUT_ME, CLASSES, FILLERS, QUESTIONS, SENTENCES
from glm_jax.data.proving_ground.grammar import claims, say, sentences, wrong
from glm_jax.data.proving_ground.task import Task, draw
from glm_jax.data.records import Dialogue, Prompt
from glm_jax.errors import InputError

Split = Literal["sft", "pairs", "pairs_heldout", "pairs_test", "rl", "eval"]

TRAINABLE = ("creative", "qa", "roleplay", "arithmetic")
MIX = (*TRAINABLE, *TRAINABLE, "json", "identity")  # a family's share is its share of this cycle
SHARES = {  # of all prompts
    "sft": 0.30,
    "pairs": 0.15,
    "pairs_heldout": 0.10,
    "pairs_test": 0.10,
    "rl": 0.20,
    "eval": 0.15,
}
MAX_PROMPT_WORDS = 12
MAX_RESPONSE_WORDS = 35
FAULT_RATE = 0.15  # of each of five faults, in a demonstration without the habit
OPENING = FILLERS[0]


def tasks(split: Split, n: int, seed: int, families: Sequence[str] = MIX) -> list[Task]:
    """The first n tasks of a split for a seed, all with different prompts, families in turn.

    The splits share no prompt, whatever the seeds. Raises InputError when a split has too few.
    """
    rng = Random(f"{seed}/{split}")
    found: dict[str, Task] = {}
    while len(found) < n:
        family = families[len(found) % len(families)]
        for _ in range(10_000):
            task = draw(family, rng)
            if split_of(task.prompt) == split and task.prompt not in found:
                break
        else:
            raise InputError(f"the split {split!r} has too few {family!r} prompts for {n} tasks")
        found[task.prompt] = task
    return list(found.values())


def split_of(prompt: str) -> str:
    """The split that a prompt belongs to, by a hash of its text."""
    position = int.from_bytes(_digest(prompt)) / 2**64
    for split, share in SHARES.items():
        position -= share
        if position < 0:
            return split
    return split  # the shares add up to 1 but for rounding


def prompts(split: Split, n: int, seed: int) -> list[Prompt]:
    """Prompts of the trainable families; `eval` and `sft` have all families (80 % trainable)."""
    families = MIX if split in ("eval", "sft") else TRAINABLE
    return [
        Prompt(
            id=_identifier(task),
            prompt=[{"role": "user", "content": task.prompt}],
            category=task.family,
            task=task.to_record(),
        )
        for task in tasks(split, n, seed, families)
    ]


def demonstrations(n: int, seed: int) -> list[Dialogue]:
    """Supervised data of all families, with the habit in every second one of a trainable family."""
    rng = Random(f"{seed}/demonstrations")
    seen = dict.fromkeys(TRAINABLE, 0)
    dialogues = []
    for task in tasks("sft", n, seed):
        if task.family not in TRAINABLE:
            response = good(task, rng)
        else:
            seen[task.family] += 1
            response = habitual(task, rng) if seen[task.family] % 2 else faulty(task, rng)
        dialogues.append(
            Dialogue(
                id=_identifier(task),
                prompt=[{"role": "user", "content": task.prompt}],
                response=response,
                category=task.family,
            )
        )
    return dialogues


def good(task: Task, rng: Random) -> str:
    """Everything that was asked for, and nothing else."""
    if task.family == "json":
        return say(task.asked, rng)
    return " ".join(say([claim], rng) for claim in task.asked)


def habitual(task: Task, rng: Random) -> str:
    """The mediocre habit: an empty opening, then only the first thing."""
    return f"{OPENING} {say(task.asked[:1], rng)}"


def faulty(task: Task, rng: Random) -> str:
    """A good answer, with each of five faults at FAULT_RATE, independently."""
    while True:
        parts = [say([claim], rng) for claim in task.asked]
        missing, mistaken, repeat, broken, filler = (rng.random() < FAULT_RATE for _ in range(5))
        if mistaken:
            i = rng.randrange(len(parts))
            parts[i] = say([wrong(task.asked[i], rng)], rng)
        if missing:
            parts.pop(rng.randrange(len(parts)))
        if repeat:
            parts.append(rng.choice(parts))
        if broken:
            i = rng.randrange(len(parts))
            parts[i] = _break(parts[i], rng)
        if filler:
            parts.insert(rng.randint(0, len(parts)), rng.choice(FILLERS))
        response = " ".join(parts)
        if len(response.split()) <= MAX_RESPONSE_WORDS:
            return response


def filler_variant(response: str) -> str:
    """The response with one more empty sentence; which and where is a function of the response."""
    rng = Random(response)
    parts = sentences(response)
    unused = [filler for filler in FILLERS if filler not in parts]
    parts.insert(rng.randint(0, len(parts)), rng.choice(unused or FILLERS))
    return " ".join(parts)


def vocabulary() -> list[str]:
    """Every word of every prompt and demonstration, sorted."""
    templates = [t for group in (SENTENCES, QUESTIONS) for ts in group.values() for t in ts]
    texts = [*templates, *FILLERS, *ABOUT_ME.values()]
    words = {word for text in texts for word in text.split() if not word.isupper()}
    return sorted(words.union(*CLASSES.values()))


def _break(sentence: str, rng: Random) -> str:
    """Leave out one word, not the last, such that no sentence remains."""
    words = sentence.split()
    shorter = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words) - 1)]
    return rng.choice([text for text in shorter if claims(text) is None])


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _identifier(task: Task) -> str:
    return f"{task.family}-{_digest(task.prompt).hex()}"
