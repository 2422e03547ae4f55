"""Text and dialogues to tokens and back: a vocabulary, and the prompt format of its models."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import SupportsIndex

from etils import epath

from glm_jax.text.bpe import BPEVocabulary, train_bpe, word_level
from glm_jax.text.folder import CONFIG, FORMAT, Config, Vocabulary, read_folder
from glm_jax.text.prompts import COMPACT, ROLES, Message, PromptFormat, Segment, Special, Text


class Tokenizer:
    """Tokens of a GLM model.

    Specials come from prompt formats alone: "<|user|>" or "[gMASK]" inside a text is text.
    """

    def __init__(
        self, vocabulary: Vocabulary, prompt_format: PromptFormat, config: Config | None = None
    ):
        ids = vocabulary.specials
        self._vocabulary, self._config = vocabulary, config or {}
        self.prompt_format = prompt_format
        self.vocab_size: int = vocabulary.size
        self.eos_id: int = ids[prompt_format.stops[0]]
        self.pad_id: int = ids[prompt_format.pad]
        self.prefix_ids: tuple[int, ...] = tuple(ids[token] for token in prompt_format.prefix)
        self.role_ids: dict[str, int] = {r: ids[f"<|{r}|>"] for r in ROLES if f"<|{r}|>" in ids}
        self.stop_ids: tuple[int, ...] = tuple(ids[token] for token in prompt_format.stops)

    @classmethod
    def load(cls, folder: str | Path, prompt_format: str | None = None) -> "Tokenizer":
        """The tokenizer in a folder: one saved here, or that of a released model.

        `prompt_format`: the name of one of `prompts.FORMATS`, where the folder does not tell it.
        Raises InputError for a file that is no tokenizer, or not of a GLM.
        """
        return cls(*read_folder(epath.Path(folder), prompt_format))

    @classmethod
    def train_bpe(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """A byte-level BPE learned from texts: decoding gives back every text exactly.

        `vocab_size` counts the specials, which come last; a small text may give fewer tokens.
        """
        backend = train_bpe(texts, vocab_size, COMPACT.specials)
        return cls(BPEVocabulary(backend, COMPACT.specials), COMPACT)

    @classmethod
    def word_level(cls, words: Iterable[str]) -> "Tokenizer":
        """A token a word, split at blanks; specials first, then `<unk>` for every other word."""
        return cls(BPEVocabulary(word_level(words, COMPACT.specials), COMPACT.specials), COMPACT)

    @property
    def fingerprint(self) -> str:
        """The same for the same tokens and prompts: models that work together must agree on it."""
        known = [self.prompt_format.name, self._vocabulary.tokens()]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; never a special."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of many texts, in parallel."""
        return self._vocabulary.encode_batch(texts)

    def decode(self, ids: Iterable[SupportsIndex]) -> str:
        """The text of tokens, without specials and ids of no token (embeddings may be padded).

        `<unk>` of a vocabulary of words, which is a fault, stays.
        """
        return self._vocabulary.decode([i for i in map(int, ids) if 0 <= i < self.vocab_size])

    def decode_response(self, ids: Iterable[SupportsIndex]) -> str:
        """The text that `encode_response` makes these tokens of."""
        return self.prompt_format.answer(self.decode(ids))

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """The messages and what calls for the assistant's answer."""
        return self.encode_prompts([messages])[0]

    def encode_prompts(self, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
        """`encode_prompt` for many prompts, in parallel."""
        return self._encode([self.prompt_format.prompt(messages) for messages in prompts])

    def encode_response(self, text: str) -> list[int]:
        """A response as the assistant writes it, with the end-of-text token."""
        return self.encode_responses([text])[0]

    def encode_responses(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_response` for many responses, in parallel."""
        messages = [{"role": "assistant", "content": text} for text in texts]
        return self._encode([self.prompt_format.response(message) for message in messages])

    def encode_dialogue(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """Tokens of a whole dialogue, and True where the assistant wrote them.

        A last assistant message gets its end-of-text token, as in `encode_response`. The turns
        before it have none, so that the tokens equal those that the model is prompted with.
        """
        segments = self.prompt_format.dialogue(messages)
        ids, mask = self._encode([segments])[0], []
        for segment in segments:
            mask += [segment.written] if isinstance(segment, Special) else self._written(segment)
        return ids, mask

    def save(self, folder: str | Path) -> None:
        """Write files that `load` reads and, but for sentencepiece, `AutoTokenizer` too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = self._config | {FORMAT: self.prompt_format.name}
        if isinstance(self._vocabulary, BPEVocabulary):
            config = _for_transformers(config, self.prompt_format)
        for name, data in self._vocabulary.files().items():
            _write(folder / name, data)
        _write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())

    def _encode(self, dialogues: Sequence[Sequence[Segment]]) -> list[list[int]]:
        texts = [part.text for parts in dialogues for part in parts if isinstance(part, Text)]
        encoded = iter(self.encode_batch(texts))
        specials = self._vocabulary.specials

        def ids(part):
            return [specials[part.token]] if isinstance(part, Special) else next(encoded)

        return [[i for part in parts for i in ids(part)] for parts in dialogues]

    def _written(self, segment: Text) -> list[bool]:
        """True for the tokens that lie within what the assistant wrote."""
        return [
            any(start <= first and last <= end for start, end in segment.written)
            for first, last in self._vocabulary.offsets(segment.text)
        ]


def _for_transformers(config: Config, prompt_format: PromptFormat) -> Config:
    config = config | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": prompt_format.stops[0],
        "pad_token": prompt_format.pad,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    config.pop("auto_map", None)  # names code of the release, which tokenizer.json does without
    if prompt_format.template:
        config.setdefault("chat_template", prompt_format.template)
    return config


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)
