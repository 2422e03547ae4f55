"""The vocabulary of ChatGLM2 and ChatGLM3: a sentencepiece model, and specials behind its pieces.

The specials are no pieces, so no text can spell them.
"""

from collections.abc import Sequence

from sentencepiece import SentencePieceProcessor

from glm_jax.errors import InputError

PIECES = ("<unk>", "<s>", "</s>")  # the specials among the pieces, which come first


class SentencePieceVocabulary:
    """`specials` get the ids behind the last piece, in their order."""

    def __init__(self, model: bytes, specials: Sequence[str]):
        self._model, self._processor = model, SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            self._pieces = self._processor.id_to_piece([*range(self._processor.piece_size())])
        except (RuntimeError, UnicodeDecodeError):
            raise InputError("neither a sentencepiece model nor tiktoken ranks") from None
        found = self._processor.unk_id(), self._processor.bos_id(), self._processor.eos_id()
        if found != (0, 1, 2):
            raise InputError(
                f"{PIECES} are the pieces {found} of this sentencepiece model, but 0, 1 and 2 of "
                "ChatGLM's"
            )
        self.specials = {token: i for i, token in enumerate(PIECES)}
        self.specials |= {token: i for i, token in enumerate(specials, start=len(self._pieces))}
        self.size = len(self._pieces) + len(specials)

    def tokens(self) -> list[tuple[str, int]]:
        """Every token and its id, in the order of the ids."""
        behind = [*self.specials][len(PIECES) :]
        return [(token, i) for i, token in enumerate([*self._pieces, *behind])]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters, from and to, of each token; bytes of one character end at its last."""
        return self._processor.encode(text, return_type="offset_mapping")["offsets"]

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode([i for i in ids if len(PIECES) <= i < len(self._pieces)])

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.model": self._model}
