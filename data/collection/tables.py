"""The database of a collection: who judges what, and every judgement ever made.

A pair's `first` response is the one with the smaller id. Which of them an annotator sees on the
left is drawn for each assignment; verdicts are kept in terms of first and second, never of sides.
Judgements, retractions and changes are only ever added. Times are seconds since 1970, UTC.
"""

from functools import partial
from secrets import token_urlsafe
from typing import Any, Literal, TypeAlias

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Role: TypeAlias = Literal["annotator", "senior", "administrator"]
State: TypeAlias = Literal["practising", "active", "failed", "paused"]
Purpose: TypeAlias = Literal["label", "gold", "practice"]
Queue: TypeAlias = Literal["practice", "gold", "new", "back", "senior"]
Verdict: TypeAlias = Literal["first", "second", "tie", "cannot_judge", "unwilling"]
Fate: TypeAlias = Literal["open", "answered", "returned"]


class Table(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: JSON,
        list[Any]: JSON,
    }


class Secret(Table):
    """One row: what makes the draws of this database its own."""

    __tablename__ = "secrets"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Person(Table):
    __tablename__ = "people"

    id: Mapped[int] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(default=partial(token_urlsafe, 12))  # in pages, for the id
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]  # Role
    state: Mapped[str]  # State
    language: Mapped[str | None]  # of the pages, once chosen
    link: Mapped[str | None] = mapped_column(unique=True)  # SHA-256 of the personal link's secret
    password: Mapped[str | None]  # argon2
    reached: Mapped[int] = mapped_column(BigInteger, default=-1)  # place in the queue "new"
    created: Mapped[float]


class Login(Table):
    __tablename__ = "logins"

    id: Mapped[str] = mapped_column(primary_key=True)  # SHA-256 of the cookie's secret
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    csrf: Mapped[str]
    created: Mapped[float]
    expires: Mapped[float]


class Guidelines(Table):
    __tablename__ = "guidelines"

    version: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]  # Markdown
    created: Mapped[float]


class Prompt(Table):
    __tablename__ = "prompts"

    id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)  # a hash of the messages: no prompt twice
    messages: Mapped[list[Any]]
    category: Mapped[str | None]
    language: Mapped[str | None]
    task: Mapped[dict[str, Any] | None]  # opaque, for whoever made the prompt


class Response(Table):
    __tablename__ = "responses"

    id: Mapped[str] = mapped_column(primary_key=True)  # of the whole collection
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompts.id"), index=True)
    text: Mapped[str]


class Pair(Table):
    __tablename__ = "pairs"
    __table_args__ = (
        UniqueConstraint("first_id", "second_id"),
        Index("pairs_in_queues", "queue", "place"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompts.id"), index=True)
    first_id: Mapped[str] = mapped_column(ForeignKey("responses.id"))
    second_id: Mapped[str] = mapped_column(ForeignKey("responses.id"))
    purpose: Mapped[str] = mapped_column(default="label", index=True)  # Purpose
    answer: Mapped[str | None]  # first, second or tie: what is right of gold and practice
    wanted: Mapped[int] = mapped_column(default=1)  # annotators
    missing: Mapped[int] = mapped_column(default=1)  # of them, or 1 for a senior
    decision: Mapped[int | None]  # without a majority: the judgement of the senior who decided
    queue: Mapped[str | None] = mapped_column(default="new")  # Queue in which it waits
    place: Mapped[int] = mapped_column(BigInteger)  # the order in which pairs are handed out


class Assignment(Table):
    __tablename__ = "assignments"
    __table_args__ = (
        UniqueConstraint("pair_id", "person_id", "repeat"),
        Index("assignments_of_person", "person_id", "number"),
        Index("assignments_by_fate", "fate", "leased_until"),
        Index("assignments_of_person_by_fate", "person_id", "fate", "number"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  # a secret that nobody can guess
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    number: Mapped[int]  # 1, 2, 3, ...: the person's assignments in order
    swapped: Mapped[bool]  # the second response stands on the left
    repeat: Mapped[bool] = mapped_column(default=False)  # hidden: the sides of before, swapped
    to_decide: Mapped[bool] = mapped_column(default=False)  # by a senior, for want of a majority
    fate: Mapped[str] = mapped_column(default="open")  # Fate
    leased_until: Mapped[float]  # if returned: it comes to the same person no sooner
    created: Mapped[float]


class Judgement(Table):
    """One a press of the button; what was undone stays here."""

    __tablename__ = "judgements"
    __table_args__ = (UniqueConstraint("assignment_id", "attempt"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assignment_id: Mapped[str] = mapped_column(ForeignKey("assignments.id"))
    attempt: Mapped[int]  # 1, and one more after every undo
    verdict: Mapped[str]  # Verdict
    strength: Mapped[int | None]  # 1 slight, 2 clear; none of a tie
    criteria: Mapped[dict[str, Any]]  # helpfulness, harmlessness, fluency: first, second or tie
    flags: Mapped[list[Any]]  # of the prompt, from `records.Quality`
    comment: Mapped[str | None]
    milliseconds: Mapped[int | None]  # visible, active time; unknown without our script
    guidelines: Mapped[int | None] = mapped_column(ForeignKey("guidelines.version"))
    created: Mapped[float]


class Retraction(Table):
    """A judgement that was undone, or (no `judgement_id`) all of a person's that do not count."""

    __tablename__ = "retractions"

    id: Mapped[int] = mapped_column(primary_key=True)
    judgement_id: Mapped[int | None] = mapped_column(ForeignKey("judgements.id"), index=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    kind: Mapped[str]  # undone, invalidated, restored
    reason: Mapped[str | None]
    by_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    created: Mapped[float]


class Change(Table):
    """What administrators did: paused, resumed, invited, reassigned, new guidelines."""

    __tablename__ = "changes"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    about: Mapped[dict[str, Any]]
    created: Mapped[float]
