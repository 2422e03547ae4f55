"""Vocabularies of the `tokenizers` library: those trained here, and those of GLM-4 and later."""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from glm_jax.errors import InputError

UNKNOWN = "<unk>"

# GLM-4's split: contractions, words with one leading mark, digits by threes, marks, blanks.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class BPEVocabulary:
    """A `tokenizers.Tokenizer` that holds the specials, which no text can spell.

    `marks`: added tokens that a text can spell, whatever its file calls them.
    """

    def __init__(self, backend: Backend, specials: Sequence[str], marks: Sequence[str] = ()):
        missing = [token for token in specials if backend.token_to_id(token) is None]
        if missing:
            raise InputError(f"the tokenizer has no token {missing[0]!r}; it needs {specials}")
        # a file may hold them as ordinary tokens, which a text could spell
        add_specials(backend, specials)
        backend = _make_ordinary(backend, marks)
        backend.encode_special_tokens = True  # "<|user|>" inside a text is text
        backend.no_truncation()  # files keep the settings of whoever wrote them
        backend.no_padding()
        self._backend = backend
        self._unknown_id = backend.token_to_id(UNKNOWN)
        self.specials = {token: backend.token_to_id(token) for token in specials}
        self._special_ids = frozenset(self.specials.values())
        self.size = 1 + max(backend.get_vocab().values(), default=-1)

    def __reduce__(self) -> tuple:
        # a pickled backend forgets that specials inside a text are text, but not what marks are
        return BPEVocabulary, (self._backend, tuple(self.specials))

    def tokens(self) -> list[tuple[str, int]]:
        """Every token and its id, in the order of the ids."""
        return sorted(self._backend.get_vocab().items(), key=lambda item: item[1])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        if self._unknown_id is None:  # byte-level: specials lie outside the model's vocabulary
            return [encoding.ids for encoding in encodings]
        return [
            [self._unknown_id if i in self._special_ids else i for i in encoding.ids]
            for encoding in encodings
        ]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters, from and to, of each token."""
        return self._backend.encode(text, add_special_tokens=False).offsets

    def decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)

    def files(self) -> dict[str, bytes]:
        return {"tokenizer.json": self._backend.to_str(pretty=True).encode()}


def parse(data: bytes) -> Backend:
    """A backend from the bytes of a tokenizer.json."""
    try:
        return Backend.from_str(data.decode())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the library raises bare Exception, or panics
        raise InputError(f"not a tokenizer: {error}") from None


def add_specials(backend: Backend, specials: Sequence[str]) -> Backend:
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in specials])
    return backend


def _make_ordinary(backend: Backend, tokens: Sequence[str]) -> Backend:
    added = backend.get_added_tokens_decoder().values()
    wrong = [token.content for token in added if token.special and token.content in tokens]
    if not wrong:
        return backend
    backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in wrong])
    return Backend.from_str(backend.to_str())  # the library notices only then


def byte_level(model: models.BPE) -> Backend:
    """A backend that cuts texts as GLM-4 does, and decodes to exactly the bytes it was given."""
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def train_bpe(texts: Iterable[str], vocab_size: int, specials: Sequence[str]) -> Backend:
    """A byte-level BPE learned from texts, specials last; a small text may give fewer tokens."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < len(alphabet) + len(specials):
        raise InputError(
            f"a vocabulary of {vocab_size} tokens is too small: bytes and specials alone "
            f"take {len(alphabet) + len(specials)}"
        )
    backend = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return add_specials(backend, specials)


def word_level(words: Iterable[str], specials: Sequence[str]) -> Backend:
    """A token a word, split at blanks; specials first, then `<unk>` for every other word."""
    vocabulary = {token: i for i, token in enumerate((*specials, UNKNOWN))}
    for word in words:
        if word.split() != [word]:
            raise InputError(f"a word of the vocabulary holds a blank or nothing: {word!r}")
        vocabulary.setdefault(word, len(vocabulary))
    backend = Backend(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return add_specials(backend, specials)
