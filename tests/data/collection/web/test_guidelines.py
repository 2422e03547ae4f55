"""Guidelines: their versions, and which of them a label carries."""

import pytest
from sqlalchemy import select

from glm_jax.data.collection.store import writing
from glm_jax.data.collection.tables import Guidelines
from glm_jax.data.collection.web import guidelines
from glm_jax.data.collection.web.guidelines import publish
from glm_jax.errors import InputError


def test_guidelines_have_versions(collection, tmp_path):
    file = tmp_path / "guidelines.md"
    file.write_text("Be *fair*.", encoding="utf-8")
    for expected in (1, 1):
        there = collection(guidelines=str(file))
        shown = there.annotator("Anna").get("/guidelines").text
        assert "<em>fair</em>" in shown and f"Version {expected}" in shown
    file.write_text("Be kind.", encoding="utf-8")
    there = collection(guidelines=str(file))
    there.annotator("Anna").submit("/judge", side="tie")
    assert there.judgements()[-1].guidelines == 2
    with writing(there.engine) as db:
        assert len(db.scalars(select(Guidelines)).all()) == 2
    with pytest.raises(InputError, match=r"nothing\.md: No such file"):
        collection(guidelines=str(tmp_path / "nothing.md"))
    for text in (" \n", "Be\0kind."):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"guidelines\.md: expected Markdown"):
            collection(guidelines=str(file))


def test_a_newer_release_takes_nothing_back(collection, monkeypatch):
    """Its own text may have changed; what a collection says is the administrator's affair."""
    with writing(collection().engine) as db:
        publish(db, "Be kind.", 0.0)
    monkeypatch.setattr(guidelines, "_ours_whole", lambda: "Of another release.")
    assert "Be kind." in collection().annotator("Anna").get("/guidelines").text


def test_a_label_carries_the_guidelines_that_were_shown(collection):
    there = collection()
    anna = there.annotator("Anna")
    shown = anna.form("/judge") | {"side": "tie"}
    with writing(there.engine) as db:
        assert publish(db, "Be kind.", there.now) == 2
    for forged in ("0", "3", "", "-1"):
        assert anna.post("/judge", data=shown | {"guidelines": forged}).status_code == 409
    for path, version in (("/guidelines?version=1", 1), ("/guidelines", 2)):
        assert f"Version {version}<" in anna.get(path).text
    assert 'href="/guidelines?version=2"' in anna.get("/").text
    for version, status in (("3", 404), ("0", 422), ("9" * 30, 422), ("x", 422)):
        assert anna.get(f"/guidelines?version={version}").status_code == status
    anna.post("/judge", data=shown)
    anna.submit("/judge", side="tie")
    assert [judgement.guidelines for judgement in there.judgements()] == [1, 2]
