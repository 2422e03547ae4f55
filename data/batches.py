"""From records to padded arrays, and the order in which training takes their rows.

Dims: N rows, T tokens of prompt and response together, P tokens of a prompt. Every mask comes from
lengths, never from `token != pad`: the pad token is also the one that ends a response.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from glm_jax.data.records import Dialogue, Pair, Prompt
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer

TooLong: TypeAlias = Literal["truncate", "drop"]
Tokens: TypeAlias = list[int]
Counts: TypeAlias = dict[str, dict[str, int]]  # EVENTS of "all" records and of every category

WINDOW = 8  # batches whose rows are sorted by length together
EVENTS = (
    "total",
    "dropped_prompt",
    "dropped_response",
    "dropped_identical",
    "truncated_prompt",
    "truncated_response",
)


class SFTArrays(NamedTuple):
    """Prompt, response and pads: row n holds `tokens[n, :lengths[n]]`."""

    tokens_NxT: np.ndarray
    lengths_N: np.ndarray
    prompt_lengths_N: np.ndarray
    rows_N: np.ndarray  # which record each row was made from


class PairArrays(NamedTuple):
    """Both dialogues of each pair; the first `prompt_lengths` tokens of the two are equal."""

    chosen_NxT: np.ndarray
    chosen_lengths_N: np.ndarray
    rejected_NxT: np.ndarray
    rejected_lengths_N: np.ndarray
    prompt_lengths_N: np.ndarray
    rows_N: np.ndarray


class PromptArrays(NamedTuple):
    """Pads and prompt: row n holds `tokens[n, P - lengths[n]:]`."""

    tokens_NxP: np.ndarray
    lengths_N: np.ndarray
    rows_N: np.ndarray


def sft_arrays(
    dialogues: Sequence[Dialogue],
    tokenizer: Tokenizer,
    max_length: int,
    *,
    max_prompt: int | None = None,
    long_prompts: TooLong = "truncate",
    long_responses: TooLong = "truncate",
) -> tuple[SFTArrays, Counts]:
    """Right-padded dialogues of at most `max_length` tokens.

    A prompt may take `max_prompt` tokens of these (half by default) and is cut from the left,
    behind `[gMASK] <sop>`; the response gets what is left, and one that is cut has no end token.
    """
    prompts = tokenizer.encode_prompts([d.prompt for d in dialogues])
    responses = zip(tokenizer.encode_responses([d.response for d in dialogues]))
    limits = _limits(tokenizer, max_length, max_prompt, long_prompts, long_responses)
    rows, counts = _fit_all(dialogues, prompts, responses, limits)
    return SFTArrays(
        *_pad([row.prompt + row.responses[0] for row in rows], max_length, tokenizer.pad_id),
        _int32(len(row.prompt) for row in rows),
        _int32(row.index for row in rows),
    ), counts


def pair_arrays(
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    max_length: int,
    *,
    max_prompt: int | None = None,
    long_prompts: TooLong = "truncate",
    long_responses: TooLong = "truncate",
) -> tuple[PairArrays, Counts]:
    """Right-padded pairs, cut as in `sft_arrays`.

    A pair whose responses differ only behind the cut is dropped, and counted.
    """
    prompts = tokenizer.encode_prompts([pair.prompt for pair in pairs])
    chosen = tokenizer.encode_responses([pair.chosen for pair in pairs])
    rejected = tokenizer.encode_responses([pair.rejected for pair in pairs])
    limits = _limits(tokenizer, max_length, max_prompt, long_prompts, long_responses)
    rows, counts = _fit_all(pairs, prompts, zip(chosen, rejected, strict=True), limits)
    return PairArrays(
        *_pad([row.prompt + row.responses[0] for row in rows], max_length, tokenizer.pad_id),
        *_pad([row.prompt + row.responses[1] for row in rows], max_length, tokenizer.pad_id),
        _int32(len(row.prompt) for row in rows),
        _int32(row.index for row in rows),
    ), counts


def prompt_arrays(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    max_prompt: int,
    *,
    long_prompts: TooLong = "truncate",
) -> tuple[PromptArrays, Counts]:
    """Left-padded prompts of at most `max_prompt` tokens: all end in the last column."""
    encoded = tokenizer.encode_prompts([prompt.prompt for prompt in prompts])
    limits = _limits(tokenizer, max_prompt + 1, max_prompt, long_prompts, "truncate")
    rows, counts = _fit_all(prompts, encoded, [()] * len(encoded), limits)
    flipped_NxP, lengths_N = _pad([row.prompt[::-1] for row in rows], max_prompt, tokenizer.pad_id)
    return PromptArrays(
        flipped_NxP[:, ::-1].copy(), lengths_N, _int32(r.index for r in rows)
    ), counts


def cut_prompt(prompt: Tokens, prefix: int, max_prompt: int) -> Tokens:
    """At most `max_prompt` tokens: the `prefix` that every prompt begins with, and the last."""
    if len(prompt) <= max_prompt:
        return prompt
    return prompt[:prefix] + prompt[prefix - max_prompt :]


def span_mask(starts_N: np.ndarray, ends_N: np.ndarray, length: int) -> np.ndarray:
    """Bool [N, length], True at positions `starts <= t < ends`.

    starts [2], ends [4], length 5  ->  [[F F T T F]]
    """
    positions_1xT = np.arange(length)[None, :]
    return (positions_1xT >= starts_N[:, None]) & (positions_1xT < ends_N[:, None])


def order(seed: int, n: int, batch: int, step: int) -> np.ndarray:
    """The `batch` rows (of n) that training takes at `step`: a pure function of its arguments.

    Every epoch goes through a fresh permutation of all rows; batches run across epoch ends.
    """
    if n < 1:
        raise InputError("no rows to train on: all were dropped, or there were none")
    start, end = step * batch, (step + 1) * batch
    first, last = start // n, (end - 1) // n
    rows = np.concatenate([_permutation(seed, epoch, n) for epoch in range(first, last + 1)])
    return rows[start - first * n : end - first * n]


def grouped_order(seed: int, lengths_N: np.ndarray, batch: int, step: int) -> np.ndarray:
    """As `order`, with rows of like length together, so that short batches can be cut short.

    The rows of each WINDOW consecutive steps are sorted by length and dealt out again, batches in
    an order of chance: a pure function of its arguments too.
    """
    window, place = divmod(step, WINDOW)
    rows = order(seed, len(lengths_N), batch * WINDOW, window)
    rows = rows[np.argsort(lengths_N[rows], kind="stable")]
    turn = np.random.default_rng([seed, window, WINDOW]).permutation(WINDOW)[place]
    return rows[turn * batch : (turn + 1) * batch]


def width(lengths: np.ndarray, length: int, widths: int) -> int:
    """The smallest of `widths` even steps up to `length` that holds all rows.

    lengths [3, 30], length 52, widths 3 (18, 35, 52)  ->  35
    """
    longest = int(lengths.max())
    steps = [-(-length * k // widths) for k in range(1, widths + 1)]
    return next(step for step in steps if step >= longest)


@lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)


class _Row(NamedTuple):
    index: int
    prompt: Tokens
    responses: list[Tokens]


class _Limits(NamedTuple):
    prefix: int
    max_length: int
    max_prompt: int
    long_prompts: TooLong
    long_responses: TooLong


def _limits(
    tokenizer: Tokenizer,
    max_length: int,
    max_prompt: int | None,
    long_prompts: TooLong,
    long_responses: TooLong,
) -> _Limits:
    prefix = len(tokenizer.prefix_ids)
    max_prompt = max_length // 2 if max_prompt is None else max_prompt
    if not prefix + 2 <= max_prompt < max_length:
        raise InputError(
            f"a prompt may take {max_prompt} of {max_length} tokens; it needs at least "
            f"{prefix + 2}, and the response at least 1"
        )
    return _Limits(prefix, max_length, max_prompt, long_prompts, long_responses)


def _fit_all(
    records: Sequence[Prompt | Dialogue | Pair],
    prompts: list[Tokens],
    responses: Iterable[tuple[Tokens, ...]],
    limits: _Limits,
) -> tuple[list[_Row], Counts]:
    """The records that fit, or were made to; and what happened, by category."""
    rows: list[_Row] = []
    counts: Counts = {"all": dict.fromkeys(EVENTS, 0)}
    for i, (record, prompt, answers) in enumerate(zip(records, prompts, responses, strict=True)):
        row, events = _fit(_Row(i, prompt, list(answers)), limits)
        rows += [row] if row else []
        for group in ("all", record.category):
            if group is not None:
                group_counts = counts.setdefault(group, dict.fromkeys(EVENTS, 0))
                for event in ("total", *events):
                    group_counts[event] += 1
    return rows, counts


def _fit(row: _Row, limits: _Limits) -> tuple[_Row | None, list[str]]:
    """The row within its limits, or None, and the events that this took."""
    events = []
    prompt, responses = row.prompt, row.responses
    if len(prompt) > limits.max_prompt:
        if limits.long_prompts == "drop":
            return None, ["dropped_prompt"]
        events.append("truncated_prompt")
        prompt = cut_prompt(prompt, limits.prefix, limits.max_prompt)
    room = limits.max_length - len(prompt)
    if any(len(response) > room for response in responses):
        if limits.long_responses == "drop":
            return None, ["dropped_response"]
        events.append("truncated_response")
        responses = [response[:room] for response in responses]
    if len(responses) == 2 and responses[0] == responses[1]:
        return None, ["dropped_identical"]
    return _Row(row.index, prompt, responses), events


def _pad(sequences: list[Tokens], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded int32 tokens [N, length] and lengths [N]."""
    tokens_NxT = np.full((len(sequences), length), pad_id, np.int32)
    for row, sequence in zip(tokens_NxT, sequences, strict=True):
        row[: len(sequence)] = sequence
    return tokens_NxT, _int32(len(sequence) for sequence in sequences)


def _int32(values: Iterable[int]) -> np.ndarray:
    return np.fromiter(values, np.int32)
