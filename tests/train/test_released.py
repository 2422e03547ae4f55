"""A checkpoint as ChatGLM3 was released goes through training and out to transformers."""

import io
import json

import numpy as np
import pytest
import sentencepiece

from glm_jax import GLMConfig, Tokenizer, generate, load_pretrained, save_pretrained
from glm_jax.data.records import Dialogue, Pair, Prompt, read, write
from glm_jax.model import GLM
from glm_jax.train import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tensors and configuration in ChatGLM's naming, and a sentencepiece model of 300 pieces."""
    from flax import nnx

    folder, model = tmp_path_factory.mktemp("released"), io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["one two three", "你好"] * 9), model_writer=model, vocab_size=300,
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    config = GLMConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, eos_token_id=(2,),
    )  # fmt: skip
    save_pretrained(GLM(config, nnx.Rngs(0)), folder / "chatglm3", naming="chatglm")
    (folder / "chatglm3/tokenizer.model").write_bytes(model.getvalue())
    name = {"name_or_path": "THUDM/chatglm3-6b", "tokenizer_class": "ChatGLMTokenizer"}
    (folder / "chatglm3/tokenizer_config.json").write_text(json.dumps(name))

    asked = [{"role": "user", "content": "one 你好"}]
    row = {"id": "0", "prompt": asked}
    write(folder / "sft.jsonl", [Dialogue(**row, response="two three")] * 8)
    write(folder / "pairs.jsonl", [Pair(**row, chosen="two", rejected="three")] * 8)
    write(folder / "prompts.jsonl", [Prompt(**row)] * 4)
    return folder


def run(folder, stage, **config):
    file = folder / f"{stage}.yaml"
    file.write_text(json.dumps({"run": str(folder / stage)} | config))
    assert cli.main([stage, str(file)]) == 0
    return folder / stage / "model"


def test_from_release_to_transformers(folder):
    released, rate = str(folder / "chatglm3"), {"learning_rate": 3e-3}
    tuned = run(
        folder, "sft", model=released, data=[str(folder / "sft.jsonl")], steps=60,
        batch_size=8, optimizer=rate,
    )  # fmt: skip
    rewards = run(
        folder, "reward", model=str(tuned), pairs=str(folder / "pairs.jsonl"), batch_size=8,
        optimizer=rate,
    )  # fmt: skip
    aligned = run(
        folder, "ppo", model=str(tuned), reward_model=str(rewards),
        prompts=str(folder / "prompts.jsonl"), max_prompt=24,
        ppo={"iterations": 1, "batch_size": 4, "supervised_coefficient": 0.0,
             "sampling": {"max_new_tokens": 12}},
    )  # fmt: skip

    model, tokenizer = load_pretrained(aligned), Tokenizer.load(aligned)
    assert tokenizer.prompt_format.name == "chatglm3"
    last = tokenizer.vocab_size - 1  # <|observation|>, two after <|user|>
    assert model.config.eos_token_id == tokenizer.stop_ids == (2, last - 2, last)
    prompt = tokenizer.encode_prompt(read(folder / "prompts.jsonl", Prompt)[0].prompt)
    out = generate(model, [prompt], max_new_tokens=16)
    assert out.finish_reason[0] == "stop"
    assert tokenizer.decode_response(out.tokens[0]) == "two three"

    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(aligned)
    with torch.no_grad():
        logits = theirs(torch.tensor([prompt])).logits.numpy()
    np.testing.assert_allclose(model(np.array([prompt])), logits, atol=5e-5)
