"""A conversation with a model in the terminal, or over a pipe: an answer to every line."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from threading import Event

import jax

from glm_jax.data.records import Message
from glm_jax.generation import stream
from glm_jax.sampling import Sampling
from glm_jax.train.policy import load_policy

HELP = "/clear forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer"
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the bytes of half a character decode to


def run(
    model: str,
    *,
    system: str | None = None,
    max_new_tokens: int = 512,
    temperature: float = 0.8,
    top_p: float = 0.8,
    seed: int = 0,
    dtype: str | None = "float32",
) -> None:
    """Reads messages from stdin and writes answers to stdout; notices go to stderr.

    An answer takes at most half of the model's context, and `max_new_tokens`. When the
    conversation fills the rest its oldest turns are forgotten, the system message excepted.
    """
    for file in (sys.stdin, sys.stdout):
        file.reconfigure(errors="replace")
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    Sampling(**settings)  # wrong settings are said before gigabytes are read
    glm, tokenizer = load_policy(model, dtype=dtype)
    context = glm.config.max_position_embeddings
    settings["max_new_tokens"] = min(max_new_tokens, context // 2)
    sampling, key = Sampling(**settings), jax.random.key(seed)
    room = context - sampling.max_new_tokens

    beginning = [Message(role="system", content=system)] if system else []
    messages = beginning
    for turn, line in enumerate(_lines()):
        if line == "/clear":
            messages = beginning
            continue
        asked = [*messages, Message(role="user", content=line)]
        prompt, kept = fit(asked, room, tokenizer.encode_prompt)
        if len(prompt) > room:
            _notice(f"too long: {len(prompt)} tokens, and the context leaves a prompt {room}")
            continue
        if len(kept) < len(asked):
            _notice(f"the context is full: forgot the {len(asked) - len(kept)} oldest messages")
        noise = jax.random.fold_in(key, turn)
        tokens = stream(glm, prompt, sampling, noise, width(len(prompt), room))
        answer = _shown(tokens, tokenizer.decode)
        messages = [*kept, Message(role="assistant", content=answer)]


def fit(
    messages: list[Message], room: int, encode: Callable[[list[Message]], list[int]]
) -> tuple[list[int], list[Message]]:
    """The prompt's tokens, and the messages that are in it: without the oldest turns if together
    they are more than `room`. The system message and the last one always stay."""
    first, kept = int(messages[0]["role"] == "system"), list(messages)
    while len(prompt := encode(kept)) > room and len(kept) > first + 1:
        del kept[first : first + 2]
    return prompt, kept


def width(length: int, room: int) -> int:
    """What a prompt is padded to: 64, 128, 256, ..., at last `room`, so that few are compiled."""
    return min(room, max(64, 1 << (length - 1).bit_length()))


def pieces(tokens: Iterable[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """The text of tokens as it grows. A character is held back until all its bytes are there.

    Blanks at the beginning are left out: GLM-4 begins its answers with a newline.
    """
    ids, shown = [], 0
    for token in tokens:
        ids.append(token)
        text = decode(ids).lstrip().rstrip(UNFINISHED)
        if len(text) > shown:
            yield text[shown:]
            shown = len(text)


def _shown(tokens: Iterable[int], decode: Callable[[list[int]], str]) -> str:
    """The text of tokens, which is written as they come, until their end or Ctrl-C."""
    answer = ""
    with _interrupts() as interrupted:
        # not every token gives a piece of text, but each is a chance to stop
        tokens = takewhile(lambda _: not interrupted.is_set(), tokens)
        for piece in pieces(tokens, decode):
            print(piece, end="", flush=True)
            answer += piece
    print(flush=True)
    return answer.strip()


def _lines() -> Iterator[str]:
    """What is typed or piped in, without blank lines, until its end or /exit."""
    terminal = sys.stdin.isatty()
    if terminal:
        import readline  # noqa: F401  (gives `input` a history and the arrow keys)

        _notice(HELP)
    while True:
        try:
            line = input("> " if terminal else "").strip()
        except EOFError:
            break
        except KeyboardInterrupt:
            if not terminal:
                raise
            print()
            continue
        if line == "/exit":
            return
        if line:
            yield line
    if terminal:
        print()


@contextmanager
def _interrupts() -> Iterator[Event]:
    """Ctrl-C is noted instead of raised: JAX is never left in the middle of something."""
    pressed = Event()
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _notice(text: str) -> None:
    print(f"({text})", file=sys.stderr)
