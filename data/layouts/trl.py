"""TRL's preference layouts: the prompt explicit or implicit, texts standard or conversational.

Standard: texts; conversational: lists of {"role", "content"}. An implicit prompt is the common
beginning of both dialogues, `chosen` and `rejected`.
"""

import re
from typing import Any

from glm_jax.data.layouts import hh
from glm_jax.data.layouts.layout import Layout, Row, answer, carried, messages, pair, text
from glm_jax.data.records import Message, Pair

_UNSPACED = (  # Thai and Lao, Burmese, Khmer, Chinese and Japanese and their punctuation
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\uff00-\uffef\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[^\W_{_UNSPACED}]{{2}}")
_WORD_ENDS = re.compile(rf"[\s{_UNSPACED}]")
QUESTIONS = {"instruction", "question", "query", "input", "messages"}
"Fields that may hold the prompt in layouts that are none of these."


def _fields(row: Row, prompt: type, responses: type) -> bool:
    return (
        isinstance(row.get("prompt"), prompt)
        and isinstance(row.get("chosen"), responses)
        and isinstance(row.get("rejected"), responses)
    )


def _is_dialogue(row: Row) -> bool:
    """Both sides hold a whole dialogue, as they do where a `prompt` merely repeats its question."""
    return len(row["chosen"]) > 1 and len(row["rejected"]) > 1


def _is_conversational(row: Row) -> bool:
    return _fields(row, list, list) or (_fields(row, str, list) and not _is_dialogue(row))


def _of_conversational(row: Row) -> list[Pair]:
    if isinstance(row.get("prompt"), str):
        prompt: list[Message] = [{"role": "user", "content": row["prompt"]}]
    else:
        prompt = messages(row, "prompt")
    sides = (answer(messages(row, side), side) for side in ("chosen", "rejected"))
    return [pair(row, prompt, *sides)]


def _to_conversational(pair: Pair) -> dict[str, Any]:
    return {
        "prompt": pair.prompt,
        "chosen": [_answer(pair.chosen)],
        "rejected": [_answer(pair.rejected)],
    } | carried(pair)


def _is_conversational_implicit(row: Row) -> bool:
    return _fields(row, type(None), list) or (_fields(row, str, list) and _is_dialogue(row))


def _of_conversational_implicit(row: Row) -> list[Pair]:
    chosen, rejected = messages(row, "chosen"), messages(row, "rejected")
    n = _common(chosen[:-1], rejected[:-1])
    if not n:
        raise ValueError("fields 'chosen' and 'rejected' begin differently; that would be a prompt")
    return [pair(row, chosen[:n], answer(chosen[n:], "chosen"), answer(rejected[n:], "rejected"))]


def _to_conversational_implicit(pair: Pair) -> dict[str, Any]:
    return {
        "chosen": [*pair.prompt, _answer(pair.chosen)],
        "rejected": [*pair.prompt, _answer(pair.rejected)],
    } | carried(pair)


def _is_standard(row: Row) -> bool:
    return _fields(row, str, str) and not hh.recognises(row)


def _of_standard(row: Row) -> list[Pair]:
    prompt: Message = {"role": "user", "content": text(row, "prompt")}
    return [pair(row, [prompt], text(row, "chosen"), text(row, "rejected"))]


def _to_standard(pair: Pair) -> dict[str, Any]:
    if [message["role"] for message in pair.prompt] != ["user"]:
        raise ValueError("field 'prompt': more than one question, which needs messages: trl")
    texts = {"prompt": pair.prompt[0]["content"], "chosen": pair.chosen, "rejected": pair.rejected}
    return texts | carried(pair)


def _is_standard_implicit(row: Row) -> bool:
    return _fields(row, type(None), str) and not (QUESTIONS & row.keys() or hh.recognises(row))


def _of_standard_implicit(row: Row) -> list[Pair]:
    """The common beginning ends with a whole word, where words are set apart at all."""
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    n = _common(chosen, rejected)
    if n in (len(chosen), len(rejected)):
        raise ValueError("fields 'chosen' and 'rejected': one begins the other; no prompt is seen")
    if any(_WORD.fullmatch(text[n - 1 : n + 1]) for text in (chosen, rejected)):
        n = max((end.end() for end in _WORD_ENDS.finditer(chosen, 0, n)), default=0)
    if not chosen[:n].strip():
        raise ValueError("fields 'chosen' and 'rejected' begin differently; that would be a prompt")
    return [pair(row, [{"role": "user", "content": chosen[:n]}], chosen[n:], rejected[n:])]


def _common(one: Any, other: Any) -> int:
    """The length of the common beginning of two sequences."""
    n = min(len(one), len(other))
    return next((i for i in range(n) if one[i] != other[i]), n)


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


LAYOUTS = (
    Layout("trl", _is_conversational, _of_conversational, _to_conversational),
    Layout(
        "trl-implicit",
        _is_conversational_implicit,
        _of_conversational_implicit,
        _to_conversational_implicit,
    ),
    Layout("trl-standard", _is_standard, _of_standard, _to_standard),
    Layout("trl-standard-implicit", _is_standard_implicit, _of_standard_implicit),
)
