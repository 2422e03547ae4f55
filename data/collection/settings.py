"""What is asked of annotators, and how pairs are shared out among them."""

from typing import Annotated, Literal

from pydantic import Field

from glm_jax.configuration import configuration
from glm_jax.errors import InputError

Asked = Literal["no", "optional", "required"]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
CRITERIA = ("helpfulness", "harmlessness", "fluency")


@configuration
class CollectionConfig:
    title: str = "Preferences"
    language: Literal["en", "zh"] = "en"
    "of the pages, until an annotator chooses"
    guidelines: str = ""
    "a Markdown file; ours, with the meanings of arXiv 2404.00934, if not given"
    criteria: Asked = "optional"
    "whether helpfulness, harmlessness and fluency are judged one by one beside the whole"
    annotators: Positive = 3
    "of a pair that several judge"
    overlap: Share = 0.2
    "of the pairs that several annotators judge, for their agreement"
    gold: Share = 0.05
    "of an annotator's pairs whose answer is known, as far as there are any"
    repeats: Share = 0.02
    "of an annotator's pairs that come again, with the sides swapped"
    repeat_distance: Positive = 20
    "pairs at least between a pair and its repeat"
    practice: Count = 10
    "gold pairs that come first, as far as there are any"
    pass_mark: Share = 0.7
    "of the practice pairs judged rightly, from which on an annotator's labels count"
    lease_minutes: Annotated[float, Field(gt=0, le=60 * 24 * 365)] = 30.0
    "after which a pair that nobody has judged goes to someone else"
    session_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 12.0
    "after which annotators and administrators sign in again"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    "of overlap and order; with a secret of the database of sides, gold and repeats, too"

    def __post_init__(self):
        if self.gold + self.repeats > 1:
            raise InputError(
                "gold and repeats are shares of the same pairs: together at most 1, got "
                f"{self.gold} and {self.repeats}"
            )
