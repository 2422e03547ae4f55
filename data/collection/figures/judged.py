"""Every judgement that counts, as columns of numbers: what all statistics are made of."""

from dataclasses import dataclass, fields, replace

import numpy as np
from sqlalchemy import func
from sqlalchemy.orm import Session, aliased

from glm_jax.data.collection.labelling.judging import counted
from glm_jax.data.collection.labelling.places import decides
from glm_jax.data.collection.tables import Assignment, Judgement, Pair, Person, Response

VERDICTS = ("second", "tie", "first", "cannot_judge", "unwilling")
"The first three in order: how much the first response is better."
SECOND, TIE, FIRST = range(3)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """N judgements in the order in which they were made."""

    pair_N: np.ndarray
    prompt_N: np.ndarray  # ids, objects
    person_N: np.ndarray  # index in `names`
    verdict_N: np.ndarray  # index in VERDICTS
    right_N: np.ndarray  # what is right of gold, index in VERDICTS; -1 of the others
    swapped_N: np.ndarray  # bool: the second response stood on the left
    repeat_N: np.ndarray  # bool
    to_decide_N: np.ndarray  # bool: asked of a senior for want of a majority
    decides_N: np.ndarray  # bool: settles what the others say
    seconds_N: np.ndarray  # visible, active time; NaN where nobody measured it
    created_N: np.ndarray  # seconds since 1970
    longer_N: np.ndarray  # characters that the first response is longer than the second
    names: list[str]

    def __len__(self) -> int:
        return len(self.pair_N)

    def take(self, which_N: np.ndarray) -> "Judged":
        """Those where `which_N` is true, of the same people."""
        columns = [f.name for f in fields(self) if f.name.endswith("_N")]
        return replace(self, **{name: getattr(self, name)[which_N] for name in columns})

    def labels(self) -> "Judged":
        """Neither gold nor repeats: what the collection is for."""
        return self.take((self.right_N < 0) & ~self.repeat_N)

    def gold(self) -> "Judged":
        """Of pairs whose answer is known, seen for the first time."""
        return self.take((self.right_N >= 0) & ~self.repeat_N)

    def votes(self) -> "Judged":
        """With one of both responses preferred, or a tie."""
        return self.take(self.verdict_N <= FIRST)

    def preferences(self) -> "Judged":
        """With one of both responses preferred."""
        return self.take((self.verdict_N == FIRST) | (self.verdict_N == SECOND))


def read(db: Session) -> Judged:
    """All that count; no text leaves the database, only its length."""
    first, second = aliased(Response), aliased(Response)
    found = db.execute(
        counted()
        .with_only_columns(
            Pair.id,
            Pair.prompt_id,
            Person.name,
            Judgement.verdict,
            Pair.answer,
            Assignment.swapped,
            Assignment.repeat,
            Assignment.to_decide,
            decides(),
            Judgement.milliseconds,
            Judgement.created,
            func.length(first.text) - func.length(second.text),
        )
        .join(Person, Assignment.person_id == Person.id)
        .join(first, Pair.first_id == first.id)
        .join(second, Pair.second_id == second.id)
        .order_by(Judgement.id)
    ).all()
    columns = list(zip(*found, strict=True)) if found else [()] * 12
    names = sorted(set(columns[2]))
    number = {name: i for i, name in enumerate(names)}
    return Judged(
        pair_N=np.array(columns[0], np.int64),
        prompt_N=np.array(columns[1], object),
        person_N=np.array([number[name] for name in columns[2]], np.int64),
        verdict_N=np.array([VERDICTS.index(verdict) for verdict in columns[3]], np.int64),
        right_N=np.array([VERDICTS.index(a) if a else -1 for a in columns[4]], np.int64),
        swapped_N=np.array(columns[5], bool),
        repeat_N=np.array(columns[6], bool),
        to_decide_N=np.array(columns[7], bool),
        decides_N=np.array(columns[8], bool),
        seconds_N=np.array(columns[9], float) / 1000,
        created_N=np.array(columns[10], float),
        longer_N=np.array(columns[11], np.int64),
        names=names,
    )
