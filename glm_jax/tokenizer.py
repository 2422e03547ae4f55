"""Text to tokens and back, in the form of GLM-4's prompts.

A prompt is `[gMASK] <sop>`, then for every message its role token and its content, then
`<|assistant|>`; a response is its text and `<|endoftext|>`. No newline follows a role: that is
the form of the small models trained here (released models bring their own, with one).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from glm_jax.errors import InputError

END, UNKNOWN = "<|endoftext|>", "<unk>"
PREFIX = ("[gMASK]", "<sop>")
ROLES = ("system", "user", "assistant", "observation")
SPECIALS = (END, *PREFIX, *(f"<|{role}|>" for role in ROLES))

# GLM-4's split: contractions, words with one leading mark, digits by threes, marks, blanks.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% elif messages[-1].role == 'assistant' %}"
    "<|endoftext|>{% endif %}"
)


class Tokenizer:
    """A `tokenizers.Tokenizer` that holds the GLM specials, which no text can spell."""

    def __init__(self, backend: Backend):
        missing = [token for token in SPECIALS if backend.token_to_id(token) is None]
        if missing:
            raise InputError(f"the tokenizer has no token {missing[0]!r}; it needs {SPECIALS}")
        backend.encode_special_tokens = True  # "<|user|>" inside a text is text
        self._backend = backend
        self._special = {token: backend.token_to_id(token) for token in SPECIALS}
        self._special_ids = frozenset(self._special.values())
        self._unknown_id = backend.token_to_id(UNKNOWN)

        self.vocab_size: int = backend.get_vocab_size()
        self.eos_id: int = self._special[END]
        self.pad_id: int = self.eos_id
        self.prefix_ids: tuple[int, ...] = tuple(self._special[token] for token in PREFIX)
        self.role_ids: dict[str, int] = {role: self._special[f"<|{role}|>"] for role in ROLES}
        # As in GLM-4: a model that opens the next turn by itself has ended its own.
        self.stop_ids: tuple[int, ...] = (
            self.eos_id,
            self.role_ids["user"],
            self.role_ids["observation"],
        )

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """The tokenizer that was saved in a folder."""
        path = Path(folder) / "tokenizer.json"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            return cls(Backend.from_str(text))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception as error:  # the library raises bare Exception
            raise InputError(f"{path}: not a tokenizer: {error}") from None

    @classmethod
    def train_bpe(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A byte-level BPE learned from texts: decoding gives back every text exactly.

        `vocab_size` counts the specials, which come last; a small text may give fewer tokens.
        """
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if vocab_size < len(alphabet) + len(SPECIALS):
            raise InputError(
                f"a vocabulary of {vocab_size} tokens is too small: bytes and specials alone "
                f"take {len(alphabet) + len(SPECIALS)}"
            )
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(SPECIALS), initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(texts, trainer)
        return cls(_with_specials(backend))

    @classmethod
    def word_level(cls, words: Iterable[str]) -> "Tokenizer":
        """A token a word, split at blanks; specials first, then `<unk>` for every other word."""
        vocabulary = {token: i for i, token in enumerate((*SPECIALS, UNKNOWN))}
        for word in words:
            if word.split() != [word]:
                raise InputError(f"a word of the vocabulary holds a blank or nothing: {word!r}")
            vocabulary.setdefault(word, len(vocabulary))
        backend = Backend(models.WordLevel(vocabulary, unk_token=UNKNOWN))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return cls(_with_specials(backend))

    @property
    def fingerprint(self) -> str:
        """The same for the same vocabulary: models that share tokens must agree on it."""
        vocabulary = sorted(self._backend.get_vocab().items(), key=lambda item: item[1])
        return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; never a special."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of many texts, in parallel."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        if self._unknown_id is None:  # byte-level: specials lie outside the model's vocabulary
            return [encoding.ids for encoding in encodings]
        return [
            [self._unknown_id if i in self._special_ids else i for i in encoding.ids]
            for encoding in encodings
        ]

    def decode(self, ids: Iterable[int] | np.ndarray) -> str:
        """The text of tokens, without the specials (`<unk>`, which is a fault, stays)."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def encode_prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """`[gMASK] <sop>`, role and content of every message, and `<|assistant|>`."""
        return self.encode_prompts([messages])[0]

    def encode_prompts(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[list[int]]:
        """`encode_prompt` for many prompts, in parallel."""
        contents = iter(self.encode_batch([m["content"] for prompt in prompts for m in prompt]))
        encoded = []
        for prompt in prompts:
            ids = list(self.prefix_ids)
            for message in prompt:
                ids += [self.role_ids[message["role"]], *next(contents)]
            encoded.append([*ids, self.role_ids["assistant"]])
        return encoded

    def encode_response(self, text: str) -> list[int]:
        """The tokens of a response and the end-of-text token."""
        return [*self.encode(text), self.eos_id]

    def encode_responses(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_response` for many responses, in parallel."""
        return [[*ids, self.eos_id] for ids in self.encode_batch(texts)]

    def encode_dialogue(
        self, messages: Sequence[Mapping[str, str]]
    ) -> tuple[list[int], list[bool]]:
        """Tokens of a whole dialogue, and True where the assistant wrote them.

        A last assistant message gets its end-of-text token, as in `encode_response`. The turns
        before it have none, so that the tokens equal those that the model is prompted with.
        """
        ids, mask = list(self.prefix_ids), [False] * len(self.prefix_ids)
        for index, message in enumerate(messages):
            assistant = message["role"] == "assistant"
            last = index == len(messages) - 1
            content = self.encode(message["content"]) + [self.eos_id] * (assistant and last)
            ids += [self.role_ids[message["role"]], *content]
            mask += [False, *[assistant] * len(content)]
        return ids, mask

    def save(self, folder: str | Path) -> None:
        """Write files that transformers' `AutoTokenizer.from_pretrained(folder)` reads, too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": END,
            "padding_side": "left",
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        }
        _write(folder / "tokenizer.json", self._backend.to_str(pretty=True))
        _write(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def _with_specials(backend: Backend) -> Backend:
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    return backend


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
