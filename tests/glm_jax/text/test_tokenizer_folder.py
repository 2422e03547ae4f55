"""Folders: which prompt format they tell, and what is wrong with broken ones."""

import base64
import io
import json
from types import SimpleNamespace

import pytest
import sentencepiece
from tokenizers import Tokenizer as Backend

from glm_jax.errors import InputError
from glm_jax.text.prompts import COMPACT, FORMATS
from glm_jax.text.tokenizer import Tokenizer

TEXT = "[Round 1] 你好 hello"


def sentencepiece_model(**changes) -> bytes:
    model, options = io.BytesIO(), {"model_type": "bpe", "vocab_size": 280, "byte_fallback": True}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 9), model_writer=model, hard_vocab_limit=False,
        minloglevel=2, **options | changes,
    )  # fmt: skip
    return model.getvalue()


def rank_lines() -> list[bytes]:
    return [b"%s %d" % (base64.b64encode(bytes([byte])), byte) for byte in range(256)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tokenizer of each kind: its file's name and bytes."""
    folder = tmp_path_factory.mktemp("bpe")
    Tokenizer.train_bpe([TEXT], 300).save(folder)
    return SimpleNamespace(
        bpe=("tokenizer.json", (folder / "tokenizer.json").read_bytes()),
        ranks=("tokenizer.model", b"\n".join(rank_lines())),
        sentencepiece=("tokenizer.model", sentencepiece_model()),
    )


@pytest.fixture
def folder(tmp_path, files):
    """folder(kind, config, model): a tokenizer with these settings beside it."""

    def make(kind, config=None, model=None):
        name, data = getattr(files, kind)
        (tmp_path / name).write_bytes(data)
        for name, values in {"tokenizer_config": config, "config": model}.items():
            if values is not None:
                (tmp_path / f"{name}.json").write_text(json.dumps(values))
        return tmp_path

    return make


GLM4_TEMPLATE = "[gMASK]<sop>{% for item in messages %}<|{{ item['role'] }}|>\n…{% endfor %}"
CHATGLM3_TEMPLATE = "{% for m in messages %}[gMASK]sop<|{{ m['role'] }}|>\n {{ … }}{% endfor %}"


@pytest.mark.parametrize(
    "name, kind, config, model",
    [
        ("compact", "bpe", {"chat_template": COMPACT.template}, {"model_type": "glm"}),
        ("compact", "sentencepiece bpe", {"prompt_format": "compact"}, None),
        ("glm4", "bpe", {"chat_template": GLM4_TEMPLATE}, None),
        ("glm4", "bpe", {"chat_template": GLM4_TEMPLATE + ".split('</think>')[-1]"}, None),
        ("glm4", "bpe", {}, {"model_type": "glm4"}),
        ("glm4", "ranks", None, None),
        ("glm45", "bpe", None, {"model_type": "glm4_moe"}),
        ("glm45", "bpe", {"chat_template": GLM4_TEMPLATE + r"'\n<think></think>'"}, None),
        ("chatglm2", "sentencepiece", {"name_or_path": "THUDM/chatglm2-6b-32k"}, None),
        ("chatglm2", "sentencepiece", {}, {"_name_or_path": "/models/ChatGLM2"}),
        ("chatglm3", "sentencepiece", None, {"_name_or_path": "THUDM/chatglm3-6b"}),
        ("chatglm3", "sentencepiece", {"chat_template": CHATGLM3_TEMPLATE}, None),
        ("chatglm3", "sentencepiece", {"added_tokens_decoder": {"9": {"content": "<|user|>"}}}, {}),
    ],
)
def test_the_format_shows(folder, name, kind, config, model):
    for each in kind.split():  # a tokenizer.json goes first
        found = folder(each, config, model)
    assert Tokenizer.load(found).prompt_format is FORMATS[name]


@pytest.mark.parametrize(
    "kind, config, model",
    [
        ("bpe", None, None),
        ("bpe", {}, {"model_type": "llama"}),
        # the reasoning models of GLM-Z1 and GLM-4.7 are prompted otherwise
        ("bpe", {"chat_template": GLM4_TEMPLATE + "<|assistant|>\n<think>"}, {"model_type": "glm"}),
        ("sentencepiece", None, {"model_type": "chatglm"}),
        ("sentencepiece", {"name_or_path": "chatglm3-from-chatglm2"}, None),
    ],
)
def test_the_format_does_not_show(folder, kind, config, model):
    found = folder(kind, config, model)
    with pytest.raises(InputError, match=r"cannot be told; pass prompt_format=…, one of compact"):
        Tokenizer.load(found)
    name = "chatglm3" if kind == "sentencepiece" else "glm4"
    assert Tokenizer.load(found, prompt_format=name).prompt_format is FORMATS[name]


def test_a_format_that_is_asked_for(folder, tmp_path):
    """It goes before what the folder tells, and the template that is saved is its own."""
    found = folder("bpe", {"chat_template": GLM4_TEMPLATE, "model_max_length": 9})
    Tokenizer.load(found, "compact").save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert saved["chat_template"] == COMPACT.template and saved["model_max_length"] == 9
    Tokenizer.load(found).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/tokenizer_config.json").read_text())
    assert saved["chat_template"] == GLM4_TEMPLATE and saved["prompt_format"] == "glm4"


@pytest.mark.parametrize("kind, name", [("bpe", "chatglm3"), ("sentencepiece", "glm4")])
def test_a_format_of_other_vocabularies(folder, kind, name):
    with pytest.raises(InputError, match=r"tokenizer\.(json|model): .*(has no token|does not fit)"):
        Tokenizer.load(folder(kind), prompt_format=name)
    with pytest.raises(InputError, match="prompt_format is 'chatml', expected one of"):
        Tokenizer.load(folder(kind, {"prompt_format": "chatml"}))


def test_specials_that_a_file_calls_ordinary(folder):
    """Then the library would find them in every text."""
    found = folder("bpe", {"prompt_format": "compact"})
    data = (found / "tokenizer.json").read_text()
    (found / "tokenizer.json").write_text(data.replace('"special": true', '"special": false'))
    tokenizer = Tokenizer.load(found)
    assert not {*tokenizer.role_ids.values()} & {*tokenizer.encode("a <|user|> b")}


def test_lengths_that_a_file_asks_for(folder):
    """transformers leaves the settings of its last call in the file."""
    found = folder("bpe", {"prompt_format": "compact"})
    backend = Backend.from_file(str(found / "tokenizer.json"))
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.save(str(found / "tokenizer.json"))
    tokenizer = Tokenizer.load(found)
    for text in ("hello", "x", TEXT * 3):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("x")) == 1


LINES = rank_lines()


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("tokenizer.json", b"", "not a tokenizer: EOF"),
        ("tokenizer.json", b"\xff\xfe\x00", "not a tokenizer: 'utf-8'"),
        ("tokenizer.json", b"[" * 9999, "not a tokenizer"),
        ("tokenizer.json", b'{"model_type": "glm"}', "not a tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "no token"),
        # the library panics here
        (
            "tokenizer.json",
            b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a"]], '
            b'"continuing_subword_prefix": "##"}}',
            "not a tokenizer",
        ),
        ("tokenizer.model", b"", "neither a sentencepiece model nor tiktoken ranks"),
        ("tokenizer.model", bytes(range(256)), "neither a sentencepiece model nor tiktoken ranks"),
        ("tokenizer.model", b"{}", "neither a sentencepiece model nor tiktoken ranks"),
        ("tokenizer.model", sentencepiece_model()[:-1], "neither a sentencepiece model"),
        ("tokenizer.model", sentencepiece_model().replace("你".encode(), b"\xff" * 3), "neither"),
        ("tokenizer.model", sentencepiece_model(pad_id=0, eos_id=1, unk_id=2, bos_id=-1), "pieces"),
        ("tokenizer.model", b"\n".join([*LINES, b"!! 256"]), "line 257: expected a token"),
        ("tokenizer.model", b"\n".join([*LINES, b"AAA 256"]), "line 257: expected a token"),
        ("tokenizer.model", b"\n".join([*LINES, b"AAA= -1"]), "line 257: expected a token"),
        ("tokenizer.model", b"\n".join([*LINES, b"AAAA 257"]), "257 tokens are not 0 to 256"),
        ("tokenizer.model", b"\n".join([*LINES, b"AAAA 255"]), "257 tokens are not 0 to 256"),
        ("tokenizer.model", b"\n".join([*LINES, LINES[0]]), "line 257: the token .* came before"),
        ("tokenizer.model", b"\n".join(LINES[:-1]), "no token for the byte 0xff"),
        (
            "tokenizer.model",
            b"\n".join([*LINES, base64.b64encode(b"[gMASK]") + b" 256"]),
            "'\\[gMASK\\]' is a special token",
        ),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    for prompt_format in (None, "glm4" if b"AAA" in data or LINES[0] in data else "chatglm3"):
        with pytest.raises(InputError, match=rf"{name}: .*{message}") as raised:
            Tokenizer.load(tmp_path, prompt_format)
        assert "\n" not in str(raised.value)


def test_settings_that_are_none(folder, tmp_path):
    found = folder("ranks", config=[])
    with pytest.raises(InputError, match=r"tokenizer_config\.json: should be an object, got list"):
        Tokenizer.load(found)
    (found / "tokenizer_config.json").write_bytes(b"\x80{")
    with pytest.raises(InputError, match=r"tokenizer_config\.json: not JSON"):
        Tokenizer.load(found)
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(InputError, match=r"tokenizer\.json: cannot be read: it is no file"):
        Tokenizer.load(tmp_path)
