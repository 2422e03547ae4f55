"""Which vocabulary and which prompt format lie in a folder. Nothing in it is executed.

    tokenizer.json                        a BPE: GLM-4 and later, or trained here
    tokenizer.model with base64 ranks     tiktoken's: GLM-4-9B
    tokenizer.model otherwise             sentencepiece's: ChatGLM2 and ChatGLM3

The prompt format is the one that `Tokenizer.save` noted; in the folders of others it shows in the
chat template, in the type of the model or in its name.
"""

from typing import Any, Literal, TypeAlias

from etils import epath

from glm_jax.checkpoint.strict_json import parse_json
from glm_jax.errors import InputError
from glm_jax.text.bpe import BPEVocabulary, parse
from glm_jax.text.prompts import CHATGLM2, CHATGLM3, COMPACT, FORMATS, GLM4, GLM45, PromptFormat
from glm_jax.text.sentencepiece_model import SentencePieceVocabulary
from glm_jax.text.tiktoken_ranks import from_ranks, is_ranks

Vocabulary: TypeAlias = BPEVocabulary | SentencePieceVocabulary
Config: TypeAlias = dict[str, Any]
Kind: TypeAlias = Literal["bpe", "ranks", "sentencepiece"]

CONFIG, FORMAT = "tokenizer_config.json", "prompt_format"  # the file, and our key in it

_BY_MODEL_TYPE = {"chatglm": GLM4, "glm": GLM4, "glm4": GLM4, "glm4_moe": GLM45}


def read_folder(
    folder: epath.Path, prompt_format: str | None
) -> tuple[Vocabulary, PromptFormat, Config]:
    """The vocabulary, its prompt format and what tokenizer_config.json holds.

    The chat template is among the latter if it is of this format.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        path = folder / "tokenizer.model"
    if not path.exists():
        raise InputError(f"{folder}: holds no tokenizer.json and no tokenizer.model")
    data, config = _read(path), _read_config(folder)
    kind: Kind = "bpe"
    if path.name == "tokenizer.model":
        kind = "ranks" if is_ranks(data) else "sentencepiece"
    found = _named(prompt_format or config.get(FORMAT), folder) or _recognise(folder, config, kind)
    shape = found or (CHATGLM2 if kind == "sentencepiece" else COMPACT)
    try:
        if kind == "sentencepiece":
            vocabulary = SentencePieceVocabulary(data, shape.specials)
        else:
            backend = parse(data) if kind == "bpe" else from_ranks(data)
            vocabulary = BPEVocabulary(backend, shape.specials, shape.marks)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if found is None or (kind == "sentencepiece") != (found in (CHATGLM2, CHATGLM3)):
        raise InputError(
            f"{path}: the prompt format {'cannot be told' if found is None else 'does not fit'}; "
            f"pass prompt_format=…, one of {', '.join(FORMATS)}"
        )
    if kind != "sentencepiece" and _by_template(config) is not found:
        config.pop("chat_template", None)
    return vocabulary, found, config


def _named(name: Any, folder: epath.Path) -> PromptFormat | None:
    if name is None:
        return None
    if not isinstance(name, str) or name not in FORMATS:
        raise InputError(f"{folder}: prompt_format is {name!r}, expected one of {[*FORMATS]}")
    return FORMATS[name]


def _recognise(folder: epath.Path, config: Config, kind: Kind) -> PromptFormat | None:
    """The format of a folder that has no note of ours."""
    model = _read_json(folder / "config.json")
    if kind == "sentencepiece":
        # only ChatGLM3 has role tokens
        if "<|" in _template(config) or "<|user|>" in str(config.get("added_tokens_decoder")):
            return CHATGLM3
        names = f"{config.get('name_or_path')} {model.get('_name_or_path')}".lower()
        named = [found for found in (CHATGLM2, CHATGLM3) if found.name in names]
        return named[0] if len(named) == 1 else None
    if _template(config):
        return _by_template(config)
    return GLM4 if kind == "ranks" else _BY_MODEL_TYPE.get(str(model.get("model_type")))


def _by_template(config: Config) -> PromptFormat | None:
    template = _template(config)
    if template == COMPACT.template:
        return COMPACT
    if r"\n<think></think>" in template:
        return GLM45
    # GLM-Z1 and GLM-4.7 begin their thoughts in the prompt
    return GLM4 if "[gMASK]<sop>" in template and "<think>" not in template else None


def _template(config: Config) -> str:
    return str(config.get("chat_template") or "")


def _read_config(folder: epath.Path) -> Config:
    config, template = _read_json(folder / CONFIG), folder / "chat_template.jinja"
    if template.exists():
        config["chat_template"] = _read(template).decode(errors="replace")
    return config


def _read_json(path: epath.Path) -> Config:
    """The object in a file, empty if there is no file."""
    if not path.exists():
        return {}
    value = parse_json(_read(path), str(path))
    if not isinstance(value, dict):
        raise InputError(f"{path}: should be an object, got {type(value).__name__}")
    return value


def _read(path: epath.Path) -> bytes:
    if "://" not in str(path) and path.exists() and not path.is_file():
        raise InputError(f"{path}: cannot be read: it is no file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
