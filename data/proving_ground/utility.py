"""The hidden true utility of a response. Only the annotators and the evaluation may import it."""

from dataclasses import dataclass

from glm_jax.data.proving_ground.grammar import claims, sentences
from glm_jax.data.proving_ground.task import Task


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a reader notices in a response, or how much each of it weighs."""

    right: float  # share of the things asked for that are there and right
    fillers: float  # sentences that say nothing
    wrong: float  # claims that were not asked for or are not true
    repeats: float  # claims or empty sentences made before
    broken: float  # sentences that are not well formed
    unfinished: float  # 1 if the response did not end by itself


WEIGHTS = Findings(
    right=1.0, fillers=-0.08, wrong=-0.1, repeats=-0.15, broken=-0.2, unfinished=-0.3
)


def utility(task: Task, response: str, ended: bool) -> float:
    """The true utility of a response, in [-1, 1]; any text has one.

    U = max(-1, right/asked - 0.08 fillers - 0.1 wrong - 0.15 repeats - 0.2 broken - 0.3 [no end])

    with `right` of the things `asked` for there and right. A response is read sentence by
    sentence. One that is not well formed is broken (also the last, if it lacks its full stop); of
    the others, each claim counts once: as a repeat if it was made before (however it was worded),
    as right if it was asked for, else as wrong. A sentence that makes no claim is a filler, and if
    it was there before a repeat. The order of the claims does not matter, and nothing but fillers,
    repeats and the like make length cost anything.
    """
    return weigh(findings(task, response, ended), WEIGHTS)


def weigh(found: Findings, weights: Findings) -> float:
    """max(-1, the weighted sum of what was found)."""
    return max(-1.0, sum(value * getattr(weights, name) for name, value in vars(found).items()))


def findings(task: Task, response: str, ended: bool) -> Findings:
    """Read a response: see `utility` for what counts as what."""
    asked, said = set(task.asked), set()
    right = fillers = wrong = repeats = broken = 0
    for sentence in sentences(response):
        claimed = claims(sentence)
        if claimed is None:
            broken += 1
            continue
        for item in claimed or [("filler", sentence)]:
            if item in said:
                repeats += 1
            elif not claimed:
                fillers += 1
            elif item in asked:
                right += 1
            else:
                wrong += 1
            said.add(item)
    return Findings(
        right=right / len(asked),
        fillers=fillers,
        wrong=wrong,
        repeats=repeats,
        broken=broken,
        unfinished=float(not ended),
    )
