"""What a PPO iteration must at least compute and read, and how fast this machine does either.

Operations count the matrix products alone: two a multiply-and-add, the backward pass twice the
forward pass, attention over what a token may see (half of the square), the head at the places that
are asked for.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.config import GLMConfig
from glm_jax.model import GLM


def forward_flops(config: GLMConfig, start: np.ndarray, end: np.ndarray) -> float:
    """Of the layers, on the tokens [start, end) of each row, those before them in the cache."""
    D, H, F = config.hidden_size, config.head_dim, config.intermediate_size
    N, G = config.num_attention_heads, config.num_key_value_heads
    weights = D * (N + 2 * G) * H + N * H * D + 3 * D * F
    start, end = start.astype(float), end.astype(float)
    tokens, seen = np.sum(end - start), np.sum(end * (end + 1) - start * (start + 1)) / 2
    return config.num_hidden_layers * (2.0 * weights * tokens + 4.0 * N * H * seen)


def iteration_flops(config: GLMConfig, prompt: int, lengths: np.ndarray, epochs: int) -> float:
    """Of one generation, three scoring forwards (reference, reward, critic), and forward and
    backward of actor and critic in each epoch; `lengths`: tokens of each answer."""
    D, V, answer_tokens = config.hidden_size, config.vocab_size, float(lengths.sum())
    zeros = np.zeros_like(lengths)
    head, value_head = 2.0 * D * V * answer_tokens, 2.0 * D * answer_tokens
    # the last token drawn is read by no further step
    generation = forward_flops(config, zeros, prompt + lengths - 1) + head
    whole = forward_flops(config, zeros, prompt + lengths)
    scoring = 3 * whole + head + value_head + 2.0 * D * len(lengths)
    return generation + scoring + epochs * 3 * (2 * whole + head + value_head)


def decoding_bytes(model: GLM, dtype: str, prompt: int, lengths: np.ndarray) -> float:
    """Read while all rows are decoded together: all weights but the embedding at each step, and
    each live row's keys and values. Reading the prompt, which gives the first token, is no step."""
    config, itemsize = model.config, jnp.dtype(dtype).itemsize
    weights = sum(w.size for w in jax.tree.leaves(model)) - model.embedding[...].size
    column = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    lengths = lengths.astype(float)
    columns = np.sum((lengths - 1) * (prompt + (prompt + lengths)) / 2)
    return float(itemsize * (weights * (lengths.max() - 1) + column * columns))


def best_seconds(call: Callable[[], object], repeats: int) -> float:
    """The least of `repeats` waited-for calls, after one that compiles."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def product_rate(dtype: str, size: int) -> float:
    """Operations a second of the best of several matrix products around size x size."""
    product, rates = jax.jit(jnp.matmul), []
    for m, k, n in ((size, size, size), (2 * size, size, size), (size, size, 2 * size)):
        a, b = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
        rates.append(2.0 * m * k * n / best_seconds(lambda a=a, b=b: product(a, b), 4))
    return max(rates)


def memory_bandwidth(dtype: str, size: int) -> float:
    """Bytes a second at which `size` MiB are read: the best of sums over one and over all axes."""
    x = jnp.ones((max(size * 2**20 // (2**11 * jnp.dtype(dtype).itemsize), 1), 2**11), dtype)
    sums = jax.jit(jnp.sum), jax.jit(lambda x: jnp.sum(x, axis=1))
    return x.nbytes / min(best_seconds(lambda total=total: total(x), 4) for total in sums)
