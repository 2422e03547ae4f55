"""`glm-rlhf chat`: the real command over a pipe, and what it is made of."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
from flax import nnx

from glm_jax import GLM, GLMConfig, Tokenizer, generate, save_pretrained
from glm_jax.train import chat

PROGRAM = Path(sys.executable).with_name("glm-rlhf")
WORDS = "a b c d e f g h".split()  # noqa: SIM905
SYSTEM = {"role": "system", "content": "h h"}


def make(folder: Path, **changes) -> tuple[Path, GLM, Tokenizer]:
    tokenizer = Tokenizer.word_level(WORDS)
    config = GLMConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, pad_token_id=tokenizer.pad_id,
        eos_token_id=tokenizer.stop_ids[1:], **changes,
    )  # fmt: skip
    model = GLM(config, nnx.Rngs(1))
    model.blocks.o.set_value(model.blocks.o[...] * 10)  # what was said matters
    return folder / "model", model, tokenizer


def started(path: Path, *options: str) -> subprocess.Popen:
    command = [PROGRAM, "chat", str(path), *options]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command, **pipes, bufsize=0, env=buffered)


def read(process: subprocess.Popen) -> bytes:
    """What has been written since, at least one byte."""
    found = os.read(process.stdout.fileno(), 1 << 16)
    assert found, process.communicate()[1].decode()
    return found


def expected(model: GLM, tokenizer: Tokenizer, lines: list[str], room: int) -> list[str]:
    """The greedy answers of at most six tokens, without stream and cache of the command."""
    answers, messages = [], [SYSTEM]
    for line in lines:
        messages.append({"role": "user", "content": line})
        while len(ids := tokenizer.encode_prompt(messages)) > room:
            del messages[1:3]
        ids, mask = [0] * (room - len(ids)) + ids, [0] * (room - len(ids)) + [1] * len(ids)
        out = generate(model, [ids], [mask], max_new_tokens=6, stop_ids=tokenizer.stop_ids)
        answers.append(tokenizer.decode(out.tokens[0, : out.lengths[0]].tolist()))
        messages.append({"role": "assistant", "content": answers[-1]})
    return answers


def test_a_conversation_over_a_pipe(tmp_path):
    """Several turns, the oldest of which are forgotten; nothing but answers on stdout."""
    path, model, tokenizer = make(tmp_path, max_position_embeddings=50)
    save_pretrained(model, path, tokenizer)
    lines = ["a b c d", "e", "a g f b h e e", "d d d d a b c", "b", "c a"]
    answers = expected(model, tokenizer, lines, room=44)
    assert len({*answers}) > 3 and answers[1:2] != expected(model, tokenizer, lines[1:2], 44)
    typed = [*lines[:3], "", "a " * 60, *lines[3:], "/clear", *lines[:2], "/exit", "a"]
    settings = "--temperature", "0", "--max-new-tokens", "6", "--system", SYSTEM["content"]
    process = started(path, *settings)
    out, notices = process.communicate("\n".join(typed).encode(), timeout=120)
    assert process.returncode == 0, notices.decode()
    assert out.decode() == "".join(f"{answer}\n" for answer in [*answers, *answers[:2]])
    assert "too long" in notices.decode() and "forgot the 2 oldest" in notices.decode()


def test_an_interrupt_ends_the_answer_and_not_the_program(tmp_path):
    """The model never ends by itself: the last norm lets through one direction, and it is "c"."""
    path, model, tokenizer = make(tmp_path, max_position_embeddings=200_000)
    model.embedding.set_value(model.embedding[...].at[:, 0].set(100.0))
    model.norm.set_value(jnp.zeros(16).at[0].set(1.0))
    model.head.set_value(model.head[...].at[0, tokenizer.encode("c")[0]].set(50.0))
    save_pretrained(model, path, tokenizer)
    with started(path, "--max-new-tokens", "30000") as process:
        try:
            for _ in range(2):
                process.stdin.write(b"a b\n")
                text = read(process)
                assert len(text) < 1000, "it should come token by token"
                process.send_signal(signal.SIGINT)
                while not text.endswith(b"\n"):
                    text += read(process)
                assert {*text.split()} == {b"c"} and len(text.split()) < 30_000
            out, notices = process.communicate(timeout=60)
            assert (out, process.returncode) == (b"", 0), notices.decode()
        finally:
            process.kill()


def test_text_comes_in_whole_characters():
    tokenizer = Tokenizer.train_bpe(["a few words, a few more"], 280)
    text = "\n  word, 你好 wörld 🙂🙂 \N{REPLACEMENT CHARACTER} and more"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)
    found = list(chat.pieces(iter([*ids, tokenizer.eos_id]), tokenizer.decode))
    assert "".join(found) == text.lstrip() and all(found) and len(found) > 15
    for n in range(len(ids)):
        part = "".join(chat.pieces(ids[:n], tokenizer.decode))
        assert text.lstrip().startswith(part)


def test_the_oldest_turns_are_forgotten_first():
    def encode(messages) -> list[int]:
        return [0] * sum(len(message["content"]) for message in messages)

    talk = [{"role": "user", "content": "x" * 5}, {"role": "assistant", "content": "y" * 5}] * 3
    talk.append({"role": "user", "content": "z" * 5})
    system = {"role": "system", "content": "s" * 5}
    for room, kept in [(35, 7), (34, 5), (25, 5), (24, 3), (5, 1), (4, 1)]:
        assert chat.fit(talk, room, encode) == ([0] * 5 * kept, talk[7 - kept :])
        with_system = [system, *talk[7 - kept :]]
        prompt = [0] * 5 * (kept + 1)
        assert chat.fit([system, *talk], room + 5, encode) == (prompt, with_system)


def test_prompts_are_padded_to_few_widths():
    assert [chat.width(n, 300) for n in (1, 64, 65, 128, 129, 257, 300)] == [
        64, 64, 128, 128, 256, 300, 300,
    ]  # fmt: skip
    assert chat.width(3, 40) == 40
