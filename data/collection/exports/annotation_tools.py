"""Labels as other tools import them, in the rows that `data.layouts` reads back.

Both tools know annotators by accounts of their own. Our names stand in fields that they leave out.
Of a pair that a senior decided they hold the decision alone: they know no votes of more weight.
Criteria are told in words that name no response: whoever reads such a file must not take them for
the judgement itself.
"""

from collections.abc import Iterator
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy.orm import Session

from glm_jax.data.collection.exports.verdicts import Verdict, by_pair, deciding

PEOPLE = uuid5(NAMESPACE_OID, "glm-rlhf annotators")
FIELDS = {"first": "response_1", "second": "response_2"}
CRITERION = {"first": "1 better", "second": "2 better", "tie": "no difference"}


def argilla(db: Session) -> Iterator[dict[str, Any]]:
    """One record a pair: fields, and each annotator's responses to the questions.

    Users are UUIDs there: `user_id` is made of the name, which `annotators` has.
    """
    for said in map(deciding, by_pair(db)):
        responses: dict[str, list[dict[str, Any]]] = {}
        users = {one.annotator: str(uuid5(PEOPLE, one.annotator)) for one in said}
        for one in said:
            answers = {
                "preference": FIELDS.get(one.verdict, one.verdict),
                "strength": one.strength,
                **{name: CRITERION[value] for name, value in one.criteria.items()},
            }
            for question, value in answers.items():
                if value is not None:
                    answer = {
                        "value": value,
                        "user_id": users[one.annotator],
                        "status": "submitted",
                    }
                    responses.setdefault(question, []).append(answer)
        yield {
            "id": str(said[0].pair_id),
            "fields": _shown(said[0]),
            "metadata": _known(said[0]),
            "responses": responses,
            "annotators": {user: name for name, user in users.items()},
        }


def labelstudio(db: Session) -> Iterator[dict[str, Any]]:
    """One task a pair, each annotator's annotation made with `Pairwise`, or `Choices` for a tie.

    Without `completed_by`, since only accounts that the tool has may stand there.
    """
    for said in map(deciding, by_pair(db)):
        yield {
            "id": str(said[0].pair_id),
            "data": _shown(said[0]) | _known(said[0]),
            "annotations": [
                {
                    "annotator": one.annotator,
                    "lead_time": one.milliseconds and one.milliseconds / 1000,
                    "was_cancelled": False,
                    "result": _results(one),
                }
                for one in said
            ],
        }


def _results(said: Verdict) -> list[dict[str, Any]]:
    both = ",".join(FIELDS.values())
    if said.verdict == "tie":
        told = [_choice("tie", both, "tie")]
    else:
        side = {"first": "left", "second": "right"}[said.verdict]  # of the task's fields
        told = [
            {
                "type": "pairwise",
                "from_name": "preference",
                "to_name": both,
                "value": {"selected": side},
            }
        ]
    return told + [_choice(name, both, CRITERION[v]) for name, v in said.criteria.items()]


def _choice(name: str, both: str, value: str) -> dict[str, Any]:
    return {"type": "choices", "from_name": name, "to_name": both, "value": {"choices": [value]}}


def _shown(said: Verdict) -> dict[str, Any]:
    return {
        "prompt": said.messages,
        FIELDS["first"]: said.first_text,
        FIELDS["second"]: said.second_text,
    }


def _known(said: Verdict) -> dict[str, Any]:
    known = {"prompt_id": said.prompt_id, "category": said.category, "language": said.language}
    return {name: value for name, value in known.items() if value is not None}
