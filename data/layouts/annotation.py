"""What exports of annotation tools share: the fields that were shown, and each one's judgement.

Every annotator's judgement of a record makes pairs of its own. What a response is called in the
record is no id of it: other records call other responses so.
"""

from collections.abc import Iterable
from typing import Any

from glm_jax.data.layouts.layout import Row, messages, text
from glm_jax.data.layouts.ranked import Response, pairs_of
from glm_jax.data.records import Message, Pair

QUESTIONS = ("prompt", "instruction", "question", "query", "messages", "conversation")
"What the field with the prompt may be called; `context` may stand beside it."


def prompt(fields: Row, path: str) -> list[Message]:
    """The prompt among the fields that annotators saw: a text or messages, below its context."""
    name = next((name for name in QUESTIONS if fields.get(name) is not None), None)
    if name is None:
        raise ValueError(f"field '{path}': no prompt among {', '.join(fields)}")
    if isinstance(fields[name], list):
        return messages(fields, name)
    question = text(fields, name, f"{path}.{name}")
    if fields.get("context"):
        question = f"{text(fields, 'context', f'{path}.context')}\n\n{question}"
    return [{"role": "user", "content": question}]


def judged(
    row: Row, asked: list[Message], judgements: Iterable[tuple[list[Response], dict[str, Any]]]
) -> list[Pair]:
    """All pairs of all judgements: ranked responses, and what is known of who ranked them."""
    found: list[Pair] = []
    for responses, more in judgements:
        found += pairs_of(row, asked, responses, len(found) + 1, prompt_id=row["id"], **more)
    return found
