"""Prompts that a person could not answer well, with what is wrong: the paper's three bad kinds.

ChatGLM-RLHF (arXiv 2404.00934, section 2) asks of a prompt whether its intention is clear, its
semantics are clear, and it can be answered. Every kind has wordings of two sets, so that what was
learnt from the one is tried on the other. A word in capitals is a slot, as in `english`.
"""

from random import Random
from typing import Literal

from glm_jax.data.proving_ground.english import CLASSES, QUESTIONS
from glm_jax.data.proving_ground.task import draw
from glm_jax.data.records import Prompt, Quality

Wordings = Literal["first", "second"]

UNCLEAR: dict[Quality, dict[Wordings, tuple[str, ...]]] = {
    "unclear_intention": {
        "first": (
            "the ADJECTIVE NOUN VERB .",
            "the NOUN and the NOUN VERB ADVERB .",
            "my NOUN was ADJECTIVE and the NOUN VERB .",
            "there were NUMBER THING and a ADJECTIVE NOUN .",
            "a ADJECTIVE NOUN VERB near the NOUN ADVERB .",
        ),
        "second": (
            "ADVERB the ADJECTIVE NOUN VERB .",
            "the NOUN of LAND was ADJECTIVE and VERB .",
            "a NOUN VERB and a ADJECTIVE NOUN VERB .",
            "the ADJECTIVE NOUN had NUMBER THING .",
        ),
    },
    "unclear_semantics": {
        "first": (
            "NOUN , NOUN , NOUN",
            "ADJECTIVE ADJECTIVE NUMBER NOUN LAND",
            "VERB , VERB , ADVERB , NOUN",
            "VALUE VALUE VALUE NOUN",
            "NOUN NUMBER , ADJECTIVE , RELATION",
        ),
        "second": (
            "LAND , NOUN , LAND , VALUE",
            "NUMBER NUMBER NOUN ADJECTIVE",
            "RELATION RELATION , NOUN , THING",
            "ADVERB VERB NOUN NOUN VALUE",
        ),
    },
    "unanswerable": {
        "first": (
            "what will the ADJECTIVE NOUN do tomorrow ?",
            "which NOUN will win next year ?",
            "how many THING will the NOUN have tomorrow ?",
            "what did i dream of last night , a NOUN or a NOUN ?",
            "who will be the NOUN of LAND in a hundred years ?",
        ),
        "second": (
            "will the NOUN of LAND be ADJECTIVE tomorrow ?",
            "what will the RELATION of LAND be next year ?",
            "how many THING did i have last night ?",
            "which ADJECTIVE NOUN will win in a hundred years ?",
        ),
    },
}
KINDS: tuple[Quality, ...] = ("clear", *UNCLEAR)


def prompts_by_quality(n: int, seed: int, wordings: Wordings) -> list[Prompt]:
    """n different prompts, the four kinds in turn, each with its `quality`."""
    rng = Random(f"{seed}/quality/{wordings}")
    found: dict[str, Quality] = {}
    while len(found) < n:
        kind = KINDS[len(found) % len(KINDS)]
        found.setdefault(_text(kind, wordings, rng), kind)
    return [
        Prompt(id=f"{kind}-{i}", prompt=[{"role": "user", "content": text}], quality=kind)
        for i, (text, kind) in enumerate(found.items())
    ]


def _text(kind: Quality, wordings: Wordings, rng: Random) -> str:
    if kind == "clear":
        return _clear(wordings, rng)
    template = rng.choice(UNCLEAR[kind][wordings])
    return " ".join(rng.choice(CLASSES.get(word, (word,))) for word in template.split())


def _clear(wordings: Wordings, rng: Random) -> str:
    """What the world's tasks ask; every second wording of a family belongs to the second set."""
    while True:
        family = rng.choice(tuple(QUESTIONS))
        text = draw(family, rng).prompt
        wording = [template.split()[0] for template in QUESTIONS[family]].index
        # an identity's two differ by the comma, the others' by how they begin
        second = "," in text if family == "identity" else wording(text.split()[0]) % 2 == 1
        if second == (wordings == "second"):
            return text
