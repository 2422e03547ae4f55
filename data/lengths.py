"""How many tokens texts have: counted once for a file, and kept beside it."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias
from zipfile import BadZipFile

import numpy as np

from glm_jax.data.pair_table import PairTable
from glm_jax.data.records import Pair
from glm_jax.text.tokenizer import Tokenizer

Text: TypeAlias = Literal["prompt", "chosen", "rejected"]

BATCH = 4096  # pairs whose texts are tokenised together


def token_lengths(
    parts: Sequence[Iterable[Pair]],
    table: PairTable,
    tokenizer: Tokenizer,
    texts: Sequence[Text] = ("chosen", "rejected"),
    *,
    beside: Path | None = None,
    done: Callable[[int], Any] = lambda _: None,
) -> dict[Text, np.ndarray]:
    """The tokens of each pair's texts, uint32 [N] each; a response's end token counts.

    With `beside`, the path of the pairs, counts are looked up in the file `sidecar` names and
    kept there. They are found by all texts' hashes and the tokenizer's fingerprint, so they are
    never those of other texts; where nothing can be written, they are counted each time. `done`
    is called with the number of pairs counted so far.
    """
    key = _key(table)
    file = None if beside is None else sidecar(beside, tokenizer)
    known = {} if file is None else _read(file, key)
    missing = [text for text in texts if text not in known]
    if missing:
        found = {text: np.zeros(len(table), np.uint32) for text in missing}
        start = 0
        for batch in _batches(chain.from_iterable(parts)):
            for text in missing:
                found[text][start : start + len(batch)] = _count(batch, text, tokenizer)
            start += len(batch)
            done(start)
        known |= found
        if file is not None:
            _write(file, key, known)
    return {text: known[text] for text in texts}


def response_lengths(pairs: Sequence[Pair], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the chosen and of the rejected responses, the end token counted, [N] each."""
    return _count(pairs, "chosen", tokenizer), _count(pairs, "rejected", tokenizer)


def sidecar(pairs: Path, tokenizer: Tokenizer) -> Path:
    """Where the counts of a file's texts under a tokenizer are kept."""
    return pairs.with_name(f"{pairs.name}.{tokenizer.fingerprint}.tokens.npz")


def _count(pairs: Sequence[Pair], text: Text, tokenizer: Tokenizer) -> np.ndarray:
    if text == "prompt":
        encoded = tokenizer.encode_prompts([pair.prompt for pair in pairs])
    else:
        encoded = tokenizer.encode_responses([getattr(pair, text) for pair in pairs])
    return np.array([len(ids) for ids in encoded], int)


def _batches(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    pairs = iter(pairs)
    while batch := list(islice(pairs, BATCH)):
        yield batch


def _key(table: PairTable) -> str:
    """The same for the same texts in the same order."""
    digest = hashlib.blake2b(digest_size=16)
    for column in (table.prompts, table.texts):
        digest.update(np.ascontiguousarray(column))
    return digest.hexdigest()


def _read(file: Path, key: str) -> dict[Text, np.ndarray]:
    """The counts in a file, if they are of these texts."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
            if str(found["key"]) != key:
                return {}
            return {text: found[text] for text in ("prompt", "chosen", "rejected") if text in found}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}


def _write(file: Path, key: str, counts: dict[Text, np.ndarray]) -> None:
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as out:
            np.savez(out, key=np.array(key), **counts)
        os.replace(unfinished, file)
    except OSError:
        pass  # beside read-only data nothing is kept
    finally:
        unfinished.unlink(missing_ok=True) if os.access(file.parent, os.W_OK) else None
