"""The practice round: pairs whose answer is known come first, and a share must be right."""

from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from glm_jax.data.collection.labelling.places import undone
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Person


class Round(NamedTuple):
    """Where a person stands in the practice round."""

    judged: int
    right: int
    total: int

    def is_over(self) -> bool:
        return self.judged >= self.total

    def is_passed(self, pass_mark: float) -> bool:
        return not self.total or self.right / self.judged >= pass_mark


def practice_round(db: Session, person: Person, config: CollectionConfig) -> Round:
    """What the person judged of `config.practice` pairs, or of all there are if those are fewer."""
    there_are = db.scalar(select(func.count()).where(Pair.purpose == "practice")) or 0
    judged = db.execute(
        select(Judgement.verdict, Pair.answer)
        .join(Assignment, Assignment.id == Judgement.assignment_id)
        .join(Pair, Pair.id == Assignment.pair_id)
        .where(Pair.purpose == "practice", Assignment.person_id == person.id, ~undone())
    ).all()
    right = sum(verdict == answer for verdict, answer in judged)
    return Round(len(judged), right, min(config.practice, there_are))
