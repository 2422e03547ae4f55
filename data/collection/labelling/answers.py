"""What a person said of a pair, in sides, and what of it is kept, in first and second."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from glm_jax.data.collection import Refused
from glm_jax.data.collection.settings import CRITERIA, CollectionConfig
from glm_jax.data.collection.store import can_be_kept
from glm_jax.data.records import Quality

FLAGS = tuple(flag for flag in get_args(Quality) if flag != "clear")
STRENGTHS = (1, 2)
LONGEST_COMMENT = 4000  # characters
LONGEST_TIME = 24 * 3600 * 1000  # milliseconds


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person said of an assignment, in sides. Nothing in it is trusted."""

    assignment_id: str
    side: str
    "left, right, tie, cannot_judge or unwilling"
    strength: int | None = None
    "1 slight, 2 clear: needed for left and right, ignored otherwise"
    criteria: Mapping[str, str] = field(default_factory=dict)
    "helpfulness, harmlessness, fluency: left, right or tie; ignored if the pair was not judged"
    flags: tuple[str, ...] = ()
    "of the prompt: unclear_intention, unclear_semantics, unanswerable"
    comment: str | None = None
    milliseconds: int | None = None
    "of visible, active time; None: nobody measured it"
    guidelines: int | None = None
    "the version that was in force when the pair was shown; None: nothing is known of it"
    attempt: int | None = None
    "from `Shown`; None: whichever is due"


def checked(answer: Answer, swapped: bool, config: CollectionConfig) -> dict[str, Any]:
    """The columns of the judgement that say what the answer says. Raises Refused."""
    left, right = ("second", "first") if swapped else ("first", "second")
    sides = {"left": left, "right": right, "tie": "tie"}
    verdict = (sides | {"cannot_judge": "cannot_judge", "unwilling": "unwilling"}).get(answer.side)
    if verdict is None:
        raise Refused("say which answer is better, that they are equal, or that you cannot judge")
    prefers = answer.side in ("left", "right")
    if prefers and answer.strength not in STRENGTHS:
        raise Refused("say whether the answer is slightly (1) or clearly (2) better")
    if not 0 <= (answer.milliseconds or 0) <= LONGEST_TIME:
        raise Refused("the time on the page is not between zero and a day")
    return {
        "verdict": verdict,
        "strength": answer.strength if prefers else None,
        "criteria": _criteria(answer.criteria, sides, config) if answer.side in sides else {},
        "flags": _flags(answer.flags),
        "comment": _comment(answer.comment),
    }


def _criteria(
    given: Mapping[str, str], sides: Mapping[str, str], config: CollectionConfig
) -> dict[str, str]:
    if config.criteria == "no" and given:
        raise Refused("criteria are not asked one by one here")
    for name, side in given.items():
        if name not in CRITERIA or side not in sides:
            raise Refused("no such criterion or side: {given!r}", given=f"{name}={side}"[:60])
    if config.criteria == "required" and len(given) < len(CRITERIA):
        raise Refused("each of {criteria} must be judged", criteria=", ".join(CRITERIA))
    return {name: sides[given[name]] for name in CRITERIA if name in given}


def _flags(given: tuple[str, ...]) -> list[str]:
    unknown = next((flag for flag in given if flag not in FLAGS), None)
    if unknown is not None:
        raise Refused(
            "no such flag: {flag!r}; there are {flags}", flag=unknown[:60], flags=", ".join(FLAGS)
        )
    return [flag for flag in FLAGS if flag in given]


def _comment(given: str | None) -> str | None:
    comment = (given or "").strip()
    if len(comment) > LONGEST_COMMENT:
        raise Refused("the comment is longer than {longest} characters", longest=LONGEST_COMMENT)
    if not can_be_kept(comment):
        raise Refused("the comment holds a character that cannot be kept")
    return comment or None
