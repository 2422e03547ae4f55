"""What can be asked, by family: two things each time, and the prompt that asks for them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from random import Random
from typing import Any

from glm_jax.data.proving_ground.english import ABOUT_ME, CLASSES, CRIES, FACTS, QUESTIONS, REPLIES
from glm_jax.data.proving_ground.grammar import Claim, fill

Asked = tuple[list[Claim], list[str]]  # what the answer has to claim, and the words that ask for it


@dataclass(frozen=True, kw_only=True)
class Task:
    """A prompt and the claims that its answer has to make."""

    family: str
    prompt: str
    asked: tuple[Claim, ...]

    def to_record(self) -> dict[str, Any]:
        """As JSON, for the `task` of a record."""
        return asdict(self) | {"asked": [list(claim) for claim in self.asked]}

    @classmethod
    def from_record(cls, task: dict[str, Any]) -> "Task":
        asked = tuple(tuple(claim) for claim in task["asked"])
        return cls(family=task["family"], prompt=task["prompt"], asked=asked)


def draw(family: str, rng: Random) -> Task:
    """A task of the family, in one of its wordings."""
    asked, words = _FAMILIES[family](rng)
    question = rng.choice(QUESTIONS[family])
    return Task(family=family, prompt=fill(question, words), asked=tuple(asked))


def _creative(rng: Random) -> Asked:
    adjectives, nouns = rng.sample(CLASSES["ADJECTIVE"], 2), rng.sample(CLASSES["NOUN"], 2)
    asked = [("thing", *pair) for pair in zip(adjectives, nouns, strict=True)]
    return asked, [word for claim in asked for word in claim[1:]]


def _qa(rng: Random) -> Asked:
    asked = rng.sample(_FACTS, 2)
    return asked, [word for claim in asked for word in claim[1:3]]


def _roleplay(rng: Random) -> Asked:
    role = rng.choice(CLASSES["ROLE"])
    acts, nouns = rng.sample(CLASSES["ACT"], 2), rng.sample(CLASSES["NOUN"], 2)
    pairs = list(zip(acts, nouns, strict=True))
    asked = [("speech", CRIES[role], REPLIES[act], noun) for act, noun in pairs]
    return asked, [role, *(word for pair in pairs for word in pair)]


def _arithmetic(rng: Random) -> Asked:
    asked = rng.sample(_SUMS, 2)
    return asked, [word for claim in asked for word in claim[1:4]]


def _json(rng: Random) -> Asked:
    numbers, things = rng.sample(CLASSES["NUMBER"], 2), rng.sample(CLASSES["THING"], 2)
    pairs = list(zip(numbers, things, strict=True))
    asked = [("entry", f'"{thing}"', number) for number, thing in pairs]
    return asked, [word for pair in pairs for word in pair]


def _identity(rng: Random) -> Asked:
    first, second = rng.sample(tuple(ABOUT_ME), 2)
    opener, joiner = rng.choice(CLASSES["OPENER"]), rng.choice(CLASSES["JOINER"])
    return [(first,), (second,)], [opener, ABOUT_ME[first], joiner, ABOUT_ME[second]]


_FAMILIES: dict[str, Callable[[Random], Asked]] = {
    "creative": _creative,
    "qa": _qa,
    "roleplay": _roleplay,
    "arithmetic": _arithmetic,
    "json": _json,
    "identity": _identity,
}
_FACTS = [
    ("fact", relation, land, value)
    for land, values in FACTS.items()
    for relation, value in zip(CLASSES["RELATION"], values, strict=True)
]
_SUMS = [
    ("sum", str(a), operator, str(b), str(a + b if operator == "plus" else a - b))
    for operator, a, b in product(("plus", "minus"), range(1, 10), range(1, 10))
    if operator == "plus" or a >= b
]
