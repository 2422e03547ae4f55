"""Rows a few at a time, and each few no wider than their longest answer.

Rows are pytrees of arrays whose first axis is the row; where there is a second, it is one of
tokens, and its last R columns belong to the answer. Neither cutting changes a result.

Dims: N rows, M rows of a micro-batch, W widths.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

Rows = Any


def widths(tokens: int, number: int) -> tuple[int, ...]:
    """`number` widths of an answer, evenly up to `tokens`: (128, 4) -> (32, 64, 96, 128)."""
    return tuple(sorted({-(-tokens * i // number) for i in range(1, number + 1)}))


def at_width(
    function: Callable[..., Any],
    rows: Rows,
    *others: Any,
    lengths: Int[Array, "M"],
    widths: tuple[int, ...],
) -> Any:
    """`function(rows, *others)`, on the least of the widths that holds the longest answer.

    The device chooses among one compiled branch a width. What the function returns must not
    depend on the width in shape; `mapped` sees to that for results by token.
    """
    if len(widths) == 1:
        return function(rows, *others)
    branches = [lambda rows, *o, w=w: function(_cut(rows, widths[-1] - w), *o) for w in widths]
    chosen = jnp.searchsorted(jnp.asarray(widths), jnp.max(lengths))
    return jax.lax.switch(chosen, branches, rows, *others)


def mapped(
    function: Callable[[Rows], Any],
    rows: Rows,
    lengths: Int[Array, "N"],
    size: int | None,
    widths: tuple[int, ...],
) -> Any:
    """`function(rows)`, `size` rows at a time (all by default); results by row are put together.

    Results with a second axis are by token of the answer; beyond a chosen width they are 0.
    """

    def padded(rows: Rows) -> Any:
        return jax.tree.map(lambda y: _filled(y, widths[-1]), function(rows))

    N = lengths.shape[0]
    if size is None or size == N:
        return at_width(padded, rows, lengths=lengths, widths=widths)
    order_N = by_length(lengths, widths)

    def few(args: Any) -> Any:
        rows, lengths_M = args
        return at_width(padded, rows, lengths=lengths_M, widths=widths)

    results = jax.lax.map(few, split((rows, lengths), order_N, size))
    back_N = jnp.argsort(order_N)
    return jax.tree.map(lambda y: y.reshape(N, *y.shape[2:])[back_N], results)


def by_length(lengths: Int[Array, "N"], widths: tuple[int, ...]) -> Int[Array, "N"]:
    """The order in which micro-batches take rows: short answers with short ones."""
    return jnp.arange(lengths.shape[0]) if len(widths) == 1 else jnp.argsort(lengths)


def split(rows: Rows, order: Int[Array, "N"], size: int) -> Rows:
    """Rows in this order as micro-batches: a leading axis of N / size more."""
    return jax.tree.map(lambda x: x[order].reshape(-1, size, *x.shape[1:]), rows)


def _cut(rows: Rows, columns: int) -> Rows:
    return jax.tree.map(lambda x: x if x.ndim < 2 else x[:, : x.shape[1] - columns], rows)


def _filled(y: Array, columns: int) -> Array:
    return y if y.ndim < 2 else jnp.pad(y, ((0, 0), (0, columns - y.shape[1])))
