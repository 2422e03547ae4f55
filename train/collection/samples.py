"""What is to be compared, from a file: pairs of any layout, or what `glm-rlhf sample` wrote."""

from collections.abc import Iterable, Iterator

from glm_jax.data import records, rows
from glm_jax.data.records import Pair, Sample
from glm_jax.data.sources import open_pairs
from glm_jax.errors import InputError


def pairs_or_samples(path: str) -> Iterable[Pair] | Iterator[Sample]:
    """The pairs or samples of a file, whichever its first row is."""
    for _, raw in rows.rows(path):
        if isinstance(raw, bytes) and b'"log_probs"' in raw:
            return samples(path)
        break
    return open_pairs(path)


def samples(path: str) -> Iterator[Sample]:
    """Samples without their tokens, one by one."""
    for number, raw in rows.rows(path):
        try:
            values = rows.parse(raw)
            yield records.parse(values | {"tokens": [], "log_probs": []}, Sample)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}") from None
