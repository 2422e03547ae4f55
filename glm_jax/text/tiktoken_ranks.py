"""GLM-4's `tokenizer.model`: tiktoken's ranks as a BPE of the `tokenizers` library.

A rank file has a line per token, its bytes in base64 and its rank, which is its id. Tiktoken
merges whatever two tokens make the token of the lowest rank; a BPE wants these pairs listed.
"""

import base64
import binascii
import re

from tokenizers import Tokenizer as Backend
from tokenizers import models, processors

from glm_jax.errors import InputError
from glm_jax.text.bpe import add_specials, byte_level

# They follow the ranks, in this order: 151329 and on in the released file.
SPECIALS = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>",
)  # fmt: skip

_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})")


def is_ranks(data: bytes) -> bool:
    """Whether a file begins as a rank file does."""
    return _LINE.fullmatch(data.partition(b"\n")[0].rstrip()) is not None


def from_ranks(data: bytes) -> Backend:
    """A backend with the ids of tiktoken, and GLM-4's specials behind them."""
    ranks = _parse(data)
    tokens = sorted(ranks, key=ranks.__getitem__)
    merges = [
        (_letters(token[:k]), _letters(token[k:]))
        for token in tokens
        for k in range(1, len(token))
        if token[:k] in ranks and token[k:] in ranks
    ]
    vocabulary = {_letters(token): rank for token, rank in ranks.items()}
    backend = byte_level(models.BPE(vocabulary, merges, ignore_merges=True))
    add_specials(backend, SPECIALS)
    prefix = [(token, backend.token_to_id(token)) for token in ("[gMASK]", "<sop>")]
    # the released tokenizer begins what others encode with it so; prompts bring their own prefix
    backend.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=prefix
    )
    return backend


def _parse(data: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.rstrip().splitlines(), start=1):
        match = _LINE.fullmatch(line.rstrip())
        try:
            token = base64.b64decode(match[1], validate=True) if match else b""
        except binascii.Error:
            token = b""
        if not token:
            raise InputError(f"line {number}: expected a token in base64, a blank and its rank")
        if token in ranks:
            raise InputError(f"line {number}: the token {token!r} came before")
        ranks[token] = int(match[2])
    if sorted(ranks.values()) != [*range(len(ranks))]:
        raise InputError(f"the ranks of {len(ranks)} tokens are not 0 to {len(ranks) - 1}")
    for token in SPECIALS:
        if token.encode() in ranks:
            raise InputError(f"{token!r} is a special token and cannot have a rank")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise InputError(f"no token for the byte {missing[0]:#04x}: some texts have no encoding")
    return ranks


def _letters(token: bytes) -> str:
    return "".join(_LETTERS[byte] for byte in token)


def _alphabet() -> list[str]:
    """The letter that stands for each byte: itself where it prints, else one from 256 on."""
    prints = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in prints else next(others)) for byte in range(256)]


_LETTERS = _alphabet()
