"""Simulated annotators of the proving ground, who label over HTTP as people do.

Each has a personal link, sees what the page shows, and sends the page's own form. What he makes of
two answers is `data/proving_ground/annotators.py`'s; he finds them by the words on the page.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any, Literal, TypeAlias
from urllib.parse import urljoin

from glm_jax.data.collection.simulation.client import PATIENCE, Client, Form, Page, plain
from glm_jax.data.proving_ground.annotators import LENGTH_BIAS, NOISE, TIE, Annotator, annotators
from glm_jax.data.records import Sample
from glm_jax.errors import InputError

Side: TypeAlias = Literal["left", "right", "tie", "cannot_judge"]
Judge: TypeAlias = Callable[[str, str, str], tuple[Side, int | None]]
"from prompt, left and right answer to the better side, and how clearly (1, 2; none of a tie)"
CLEAR = 0.5  # from this difference on an answer is clearly better


@dataclass(frozen=True, kw_only=True)
class Label:
    """What one annotator said of one pair, and the server has acknowledged."""

    annotator: int
    assignment: str
    prompt: str
    left: str
    right: str
    side: Side
    strength: int | None
    page_seconds: float
    "until the page was there"
    judge_seconds: float
    "from the form's departure until the server had it"


def simulate(
    samples: Iterable[Sample],
    links: Sequence[str],
    *,
    pairs: int | None = None,
    pace: float = 0.0,
    speed: float = 1.0,
    length_bias: float = LENGTH_BIAS,
    noise: float = NOISE,
    tie: float = TIE,
    seed: int = 0,
    told: Callable[[int], object] = lambda labels: None,
) -> list[Label]:
    """One annotator a personal link labels until nothing is left for him, or `pairs` are done.

    `samples` hold what the collection shows, with its tasks; `pace`: seconds a pair, 0 for as fast
    as the server answers; `speed`: how many of them pass in one of ours; `told` hears how many
    labels there are, for a progress bar. Raises InputError when a link is not known or the server
    stays away.
    """
    known = _known(samples)
    staff = annotators(len(links), length_bias, noise, seed)
    judges = [judging(person, known, tie, seed) for person in staff]
    labels = count(1)

    def goes_on(done: int) -> bool:
        if done:  # by this person, one more than when it was asked before
            told(next(labels))
        return pairs is None or done < pairs

    return asyncio.run(label_all(links, judges, goes_on, pace=pace, speed=speed))


async def label_all(
    links: Sequence[str],
    judges: Sequence[Judge],
    goes_on: Callable[[int], bool],
    *,
    pace: float = 0.0,
    speed: float = 1.0,
    patience: float = PATIENCE,
) -> list[Label]:
    """All annotators at once, each as long as `goes_on(labels that he has given)`."""
    clients = [Client(patience) for _ in links]
    try:
        # one after the other: a crowd at the door is what the limit on rates keeps out
        for client, link in zip(clients, links, strict=True):
            await client.enter(link)
        working = [
            _label(number, *each, goes_on, pace, speed)
            for number, each in enumerate(zip(clients, links, judges, strict=True))
        ]
        return [label for labels in await asyncio.gather(*working) for label in labels]
    finally:
        for client in clients:
            await client.close()


async def _label(
    number: int,
    client: Client,
    link: str,
    judge: Judge,
    goes_on: Callable[[int], bool],
    pace: float,
    speed: float,
) -> list[Label]:
    rng, home, labels = Random(number), urljoin(link, "/"), []
    await asyncio.sleep(pace * rng.random() / speed)
    while goes_on(len(labels)):
        page, page_seconds = await _next_page(client, home)
        came, form = time.monotonic(), page.form("/judge")
        if form is None:  # nothing is left, or he is not wanted
            break
        prompt, left, right = (page.text(name) for name in ("prompt", "left", "right"))
        side, strength = judge(prompt, left, right)
        await asyncio.sleep(pace * rng.uniform(0.5, 1.5) / speed)
        sent = time.monotonic()
        await client.send(home, form, **_filled_in(form, side, strength, speed * (sent - came)))
        labels.append(Label(
            annotator=number, assignment=form.hidden["assignment"], prompt=prompt, left=left,
            right=right, side=side, strength=strength, page_seconds=page_seconds,
            judge_seconds=time.monotonic() - sent,
        ))  # fmt: skip
    return labels


async def _next_page(client: Client, home: str) -> tuple[Page, float]:
    """The page with the next pair, or without one at the end, and the seconds until it was there.

    Pages that wait for new pairs are none.
    """
    while True:
        asked = time.monotonic()
        page = await client.page(home)
        if page.again is None:
            return page, time.monotonic() - asked
        await asyncio.sleep(page.again)


def _filled_in(form: Form, side: Side, strength: int | None, seconds: float) -> dict[str, Any]:
    """What is chosen on the page; criteria that must be judged are judged as the whole is."""
    if side not in ("left", "right", "tie"):
        return {"side": side, "milliseconds": round(1000 * seconds)}
    criteria = dict.fromkeys(form.required, side)
    scale = side if strength is None else f"{side}-{strength}"
    return criteria | {"side": scale, "milliseconds": round(1000 * seconds)}


def judging(
    annotator: Annotator, known: dict[tuple[str, str], Sample], tie: float, seed: int
) -> Judge:
    """A person of the proving ground, who cannot judge an answer that the samples do not hold."""

    def judge(prompt: str, left: str, right: str) -> tuple[Side, int | None]:
        # an empty answer is shown as words that none of them has
        first, second = (
            known.get((prompt, text), known.get((prompt, ""))) for text in (left, right)
        )
        if first is None or second is None:
            return "cannot_judge", None
        # a repeat with the sides swapped is another look, and may come out otherwise
        rng = Random(f"{seed}/{annotator.name}/{prompt}/{left}/{right}")
        seen = annotator.compare(first, second, rng)
        if abs(seen) < tie or left == right:
            return "tie", None
        return "left" if seen > 0 else "right", 2 if abs(seen) >= CLEAR else 1

    return judge


def _known(samples: Iterable[Sample]) -> dict[tuple[str, str], Sample]:
    known = {}
    for sample in samples:
        if sample.task is None:
            raise InputError(f"sample {sample.id!r} has no task: only the proving ground's do")
        known[plain(sample.prompt[-1]["content"]), plain(sample.text)] = sample
    return known
