"""Links, passwords and sessions: who gets in, for how long, and what is kept of secrets."""

import pytest
from sqlalchemy import select

from glm_jax.data.collection import Refused
from glm_jax.data.collection.people import (
    enter,
    invite,
    set_password,
    sign_in,
    sign_out,
    verified,
    visitor,
)
from glm_jax.data.collection.store import reading, writing
from glm_jax.data.collection.tables import Change, Login, Person
from glm_jax.errors import InputError


def test_a_link_works_until_the_next(engine):
    with writing(engine) as db:
        link = invite(db, " Ann ", "annotator", 0.0)
        cookie = enter(db, link, 0.0, hours=1)
        assert visitor(db, cookie, 3599.0).person.name == "Ann"
        assert len(visitor(db, cookie, 0.0).csrf) >= 32
        assert visitor(db, cookie, 3600.0) is None and visitor(db, link, 0.0) is None
        again = invite(db, "Ann", "annotator", 10.0)
        assert visitor(db, cookie, 10.0) is None
        with pytest.raises(Refused, match="link"):
            enter(db, link, 10.0)
        cookie = enter(db, again, 10.0)
        sign_out(db, cookie)
        assert visitor(db, cookie, 10.0) is None
        kept = str([vars(row) for table in (Person, Login, Change)
                    for row in db.scalars(select(table))])  # fmt: skip
        assert again not in kept and cookie not in kept


def test_names_that_look_the_same_are_the_same(engine):
    composed, decomposed = "Andr\u00e9", "Andre\u0301"
    with writing(engine) as db:
        first, second = (invite(db, name, "annotator", 0.0) for name in (composed, decomposed))
        assert db.scalars(select(Person.name)).all() == [composed] and first != second


def test_passwords(engine):
    with writing(engine) as db:
        link = invite(db, "lead", "administrator", 0.0)
        lead = visitor(db, enter(db, link, 0.0), 0.0).person
        with pytest.raises(InputError, match="12"):
            set_password(db, lead, "short")
        set_password(db, lead, "correct horse battery")
        assert "correct" not in lead.password and lead.password.startswith("$argon2id$")
        cookie = sign_in(db, verified(db, "lead", "correct horse battery"), 0.0)
        assert visitor(db, cookie, 0.0).person.id == lead.id
        for name, password in (("lead", "wrong"), ("nobody", "correct horse battery")):
            with pytest.raises(Refused, match="name or password"):
                verified(db, name, password)
        with pytest.raises(Refused, match="link"):
            enter(db, link, 0.0)


def test_a_password_that_was_changed_while_it_was_verified(engine):
    with writing(engine) as db:
        invite(db, "lead", "administrator", 0.0)
        lead = db.scalars(select(Person)).one()
        set_password(db, lead, "correct horse battery")
    with reading(engine) as db:
        who = verified(db, "lead", "correct horse battery")
    with writing(engine) as db:
        set_password(db, db.get_one(Person, who.id), "another horse battery")
    with writing(engine) as db, pytest.raises(Refused, match="name or password"):
        sign_in(db, who, 0.0)


@pytest.mark.parametrize(
    ("name", "role"), [("", "annotator"), ("x" * 65, "annotator"), ("a\nb", "annotator"),
                       ("Ann", "administrator")],
)  # fmt: skip
def test_who_cannot_be_invited(engine, name, role):
    with writing(engine) as db:
        invite(db, "Ann", "annotator", 0.0)
        with pytest.raises(InputError):
            invite(db, name, role, 0.0)
