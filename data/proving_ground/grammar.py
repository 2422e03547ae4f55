"""Sentences and what they claim: said from claims, and read back into claims.

A claim is a tuple: its kind, and the words that fill its slots, as in
("fact", "food", "mira", "rice") for "the food of mira is rice .".
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random

from glm_jax.data.proving_ground.english import CLASSES, ENDS, FILLERS, FREE, SENTENCES

Claim = tuple[str, ...]
_EMPTY = "empty"
_MEMBERS = {name: frozenset(words) for name, words in CLASSES.items()}


def slots(template: str) -> list[str]:
    """The slots of a template that make the claim."""
    return [word for word in template.split() if word.isupper() and word not in FREE]


# Kind -> the classes of a claim's words. The first template of a kind makes one claim.
SLOTS = {kind: slots(templates[0]) for kind, templates in SENTENCES.items()}


def fill(template: str, words: Iterable[str]) -> str:
    """Put the words into the template's slots, in order."""
    remaining = iter(words)
    return " ".join(next(remaining) if word.isupper() else word for word in template.split())


def say(claims: Sequence[Claim], rng: Random) -> str:
    """One sentence that makes these claims, which are all of one kind."""
    kind = claims[0][0]
    words = [word for claim in claims for word in claim[1:]]
    template = rng.choice([t for t in SENTENCES[kind] if len(slots(t)) == len(words)])
    remaining = iter(words)
    return " ".join(
        rng.choice(CLASSES[word]) if word in FREE else next(remaining) if word.isupper() else word
        for word in template.split()
    )


def sentences(text: str) -> list[str]:
    """Split a text after each word that ends a sentence; the last may lack its end."""
    found: list[list[str]] = [[]]
    for word in text.split():
        found[-1].append(word)
        if word in ENDS:
            found.append([])
    return [" ".join(words) for words in found if words]


def claims(sentence: str) -> list[Claim] | None:
    """What a sentence claims: [] if it is well formed but empty, None if it is broken."""
    words = sentence.split()
    for kind, template in _TEMPLATES.get(len(words), ()):
        filled = _match(template, words)
        if filled is None:
            continue
        if kind == _EMPTY:
            return []
        size = len(SLOTS[kind])
        if size == 0:
            return [(kind,)]
        return [(kind, *filled[i : i + size]) for i in range(0, len(filled), size)]
    return None


def wrong(claim: Claim, rng: Random) -> Claim:
    """The same claim with another last word."""
    *rest, last = claim
    return (*rest, rng.choice([w for w in CLASSES[SLOTS[claim[0]][-1]] if w != last]))


def _match(template: Sequence[str], words: Sequence[str]) -> list[str] | None:
    filled = []
    for expected, word in zip(template, words, strict=True):
        if not expected.isupper():
            if word != expected:
                return None
        elif word not in _MEMBERS[expected]:
            return None
        elif expected not in FREE:
            filled.append(word)
    return filled


def _by_length() -> dict[int, list[tuple[str, list[str]]]]:
    found = defaultdict(list)
    for kind, templates in (*SENTENCES.items(), (_EMPTY, FILLERS)):
        for template in templates:
            found[len(template.split())].append((kind, template.split()))
    return dict(found)


_TEMPLATES = _by_length()
