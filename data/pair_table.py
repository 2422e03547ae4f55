"""All pairs of a file as columns of numbers: at most 97 bytes a pair, whatever the texts' size.

What filters and balancing decide, they decide on this table; the texts are read again to write
those that stay. Texts and ids stand in it as 64 bits of blake2b: among ten million different ones
two share a hash with a probability of 3e-6, and then one pair is taken for a duplicate, for a vote
on another, or the like.
"""

import hashlib
import math
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from glm_jax.data.parallel import in_order
from glm_jax.data.records import Message, Pair, draw, is_tie
from glm_jax.errors import InputError

PART = 2**24  # bytes of a file that one process reads at a time
INVALID, EMPTY, IDENTICAL, TIE = 1, 2, 4, 8
INTERNED = ("category", "language", "annotator")
NONE = "(none)"
TOTAL = "all"  # what all pairs together are called


@dataclass(frozen=True, kw_only=True)
class PairTable:
    """Columns of N pairs. A column that is the same in every row takes no memory."""

    draws: np.ndarray
    "uint64, `records.draw(seed, id)`: the same for the same id, and uniform"
    prompts: np.ndarray
    "uint64, hash of the messages"
    openings: np.ndarray
    "uint64, `records.draw(seed, first user message)`"
    chosen: np.ndarray
    rejected: np.ndarray
    "uint64, hash of the response's id or, where it has none, of its text"
    texts: np.ndarray
    "uint64, hash of both responses' texts"
    prompt_lengths: np.ndarray
    chosen_lengths: np.ndarray
    rejected_lengths: np.ndarray
    "uint32, characters"
    flags: np.ndarray
    "uint8, sum of INVALID, EMPTY, IDENTICAL, TIE"
    category: np.ndarray
    language: np.ndarray
    annotator: np.ndarray
    "int32, index in `names[...]`, -1 where it is not given"
    milliseconds: np.ndarray
    strength: np.ndarray
    weight: np.ndarray
    "float32, NaN where it is not given"
    votes: np.ndarray
    "uint32 [N, 3]: for chosen, for rejected, for neither; all 0 where they are not given"
    names: dict[str, list[str]]
    sizes: tuple[int, ...]
    "rows of each part that it was made of"

    def __len__(self) -> int:
        return len(self.draws)


COLUMNS = tuple(f.name for f in fields(PairTable) if f.name not in ("names", "sizes"))


class Groups(NamedTuple):
    names: list[str]
    codes: np.ndarray  # int32 [N], index in names


def cut(pairs: Iterable[Pair]) -> list[Iterable[Pair]]:
    """The pairs in parts, in order: those of a large file that can be cut, else one."""
    if not hasattr(pairs, "parts"):
        return [pairs]
    return list(pairs.parts(1 + os.path.getsize(pairs.path) // PART))


def scan(
    parts: Sequence[Iterable[Pair]], *, seed: int = 0, done: Callable[[int], Any] = lambda _: None
) -> PairTable:
    """The table of the pairs of all parts (`cut` makes them), read once.

    `done` is called with the number of parts read so far.
    """
    columns = {name: _Column() for name in COLUMNS}
    names: dict[str, dict[str, int]] = {field: {} for field in INTERNED}
    sizes = []
    for table in in_order(_scan, [(part, seed) for part in parts]):
        for name, column in columns.items():
            values = getattr(table, name)
            if name in names:
                known = names[name]
                new = [known.setdefault(value, len(known)) for value in table.names[name]]
                values = np.array([*new, -1], np.int32)[values]
            column.add(values)
        sizes.append(len(table))
        done(len(sizes))
    return PairTable(
        **{name: column.whole() for name, column in columns.items()},
        names={field: list(known) for field, known in names.items()},
        sizes=tuple(sizes),
    )


def group_codes(table: PairTable, by: Sequence[str] | None = None) -> Groups:
    """The group of each pair: its values of the fields `by`, joined by "/", without those it lacks.

    By default category and language, as far as the file has them.
    """
    for field in by or ():
        if field not in INTERNED:
            raise InputError(f"group {field!r}: expected one of {', '.join(INTERNED)}")
    fields_ = INTERNED[:2] if by is None else by
    values, base = np.zeros(len(table), np.int64), 1
    for field in fields_:
        values += base * (getattr(table, field).astype(np.int64) + 1)
        base *= len(table.names[field]) + 1
    found, codes = np.unique(values, return_inverse=True)
    names: dict[str, int] = {}
    which = []
    for value in found.tolist():
        parts = []
        for field in fields_:
            value, code = divmod(value, len(table.names[field]) + 1)
            parts += [table.names[field][code - 1]] if code else []
        which.append(names.setdefault(group_name("/".join(parts)), len(names)))
    return Groups(list(names), np.array(which, np.int32)[codes.astype(np.int32)])


def group_name(value: str | None) -> str:
    """What a group is called in tables, where `all` is taken."""
    return f"{TOTAL} (group)" if value == TOTAL else value or NONE


def mixed(*columns: np.ndarray) -> np.ndarray:
    """One uint64 for each row of uint64 columns, in which all bits of all columns take part.

    The finaliser of splitmix64 (Steele, Lea and Flood 2014) after each column.
    """
    found = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        found ^= column
        found += np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(30)
        found *= np.uint64(0xBF58476D1CE4E5B9)
        found ^= found >> np.uint64(27)
        found *= np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(31)
    return found


def opening(prompt: Sequence[Message]) -> str:
    """The first user message: what begins alike belongs to one split."""
    return next((message["content"] for message in prompt if message["role"] == "user"), "")


def _scan(pairs: Iterable[Pair], seed: int) -> PairTable:
    ids, prompts, openings = array("Q"), array("Q"), array("Q")
    nodes, texts, lengths, flags = array("Q"), array("Q"), array("I"), array("B")
    codes, amounts, votes = array("i"), array("f"), array("I")
    names: dict[str, dict[str, int]] = {field: {} for field in INTERNED}
    categories, languages, annotators = names.values()
    nan = math.nan

    def code(known: dict[str, int], name: str | None) -> int:
        return -1 if name is None else known.setdefault(name, len(known))

    for pair in pairs:
        prompt, chosen, rejected = pair.prompt, pair.chosen, pair.rejected
        asked = opening(prompt)
        said = "".join([f"{m['role']}:{len(m['content'])}:{m['content']}" for m in prompt])
        ids.append(draw(seed, pair.id))
        openings.append(draw(seed, asked))
        prompts.append(_hash(said))
        better, worse = _hash(chosen), _hash(rejected)
        texts.extend((better, worse))
        if pair.chosen_id is not None:
            better = _hash(f"id:{pair.chosen_id}")
        if pair.rejected_id is not None:
            worse = _hash(f"id:{pair.rejected_id}")
        nodes.extend((better, worse))
        lengths.extend((sum([len(m["content"]) for m in prompt]), len(chosen), len(rejected)))
        flags.append(_flags(pair, asked, better == worse))
        codes.extend(
            (code(categories, pair.category), code(languages, pair.language),
             code(annotators, pair.annotator))
        )  # fmt: skip
        amounts.extend(
            nan if value is None else value
            for value in (pair.milliseconds, pair.strength, pair.weight)
        )
        given = pair.votes
        votes.extend((given["chosen"], given["rejected"], given["tie"]) if given else (0, 0, 0))

    nodes_Nx2, texts_Nx2, codes_Nx3 = _rows(nodes, 2), _rows(texts, 2), _rows(codes, 3)
    lengths_Nx3, amounts_Nx3 = _rows(lengths, 3), _rows(amounts, 3)
    columns = (
        _rows(ids), _rows(prompts), _rows(openings), nodes_Nx2[:, 0], nodes_Nx2[:, 1],
        mixed(texts_Nx2[:, 0], texts_Nx2[:, 1]), *lengths_Nx3.T, _rows(flags), *codes_Nx3.T,
        *amounts_Nx3.T, _rows(votes, 3),
    )  # fmt: skip
    return PairTable(
        **dict(zip(COLUMNS, columns, strict=True)),
        names={field: list(known) for field, known in names.items()},
        sizes=(len(ids),),
    )


def _flags(pair: Pair, asked: str, one_node: bool) -> int:
    chosen, rejected, votes = pair.chosen, pair.rejected, pair.votes
    tie, same = pair.tie, chosen == rejected
    invalid = not asked.strip() or (one_node and not same)
    if votes:
        tie = tie or is_tie(votes["chosen"], votes["rejected"], votes["tie"])
        invalid = invalid or (not tie and votes["rejected"] > votes["chosen"])
    empty = not chosen.strip() or not rejected.strip()
    return INVALID * invalid | EMPTY * empty | IDENTICAL * same | TIE * tie


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _rows(values: array, width: int = 1) -> np.ndarray:
    found = np.array(values)
    return found.reshape(-1, width) if width > 1 else found


class _Column:
    """Grows in place, and takes no memory while all of its rows are the same.

    Joining the parts at the end would hold everything twice: what many small arrays leave behind
    does not go back to the system.
    """

    def __init__(self):
        self._rows = 0
        self._first = self._array = None  # [1, ...] what all rows are; the rows once they differ

    def add(self, part: np.ndarray) -> None:
        start, self._rows = self._rows, self._rows + len(part)
        if not start:
            self._first = part[:1].copy()
        if self._array is None:
            same = np.broadcast_to(self._first, part.shape)
            if np.array_equal(part, same, equal_nan=True):
                return
            shape = (start, *part.shape[1:])
            self._array = np.array(np.broadcast_to(self._first, shape), order="C")
        if self._rows > len(self._array):
            self._resize(max(self._rows, len(self._array) * 5 // 4))
        self._array[start : self._rows] = part

    def whole(self) -> np.ndarray:
        if self._array is None:
            return np.broadcast_to(self._first, (self._rows, *self._first.shape[1:]))
        self._resize(self._rows)
        return self._array

    def _resize(self, rows: int) -> None:
        self._array.resize((rows, *self._array.shape[1:]), refcheck=False)
