"""Folders that lie: a clear error, quickly, and nothing of the user's lost."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from glm_jax import Tokenizer
from glm_jax.checkpoint.pretrained import load_pretrained, save_pretrained
from glm_jax.errors import InputError

HUGE = 10**400


def change(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("naming", "changes"),
    [
        ("transformers", {"num_hidden_layers": 10**9}),
        ("transformers", {"num_hidden_layers": 300_000}),
        ("transformers", {"hidden_size": HUGE}),
        ("transformers", {"num_attention_heads": HUGE}),
        ("transformers", {"rope_parameters": {"partial_rotary_factor": 1e308}}),
        ("transformers", {"eos_token_id": [2**40]}),
        ("transformers", {"vocab_size": -5}),
        ("chatglm", {"num_layers": 300_000}),
        ("chatglm", {"kv_channels": HUGE}),
        ("chatglm", {"rope_ratio": HUGE}),
    ],
    ids=str,
)
def test_absurd_numbers_are_refused_at_once(tiny, tmp_path, naming, changes):
    save_pretrained(tiny(), tmp_path, naming=naming)
    change(tmp_path, **changes)
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        load_pretrained(tmp_path)
    assert time.monotonic() - start < 10 and len(str(error.value)) < 4000


def test_long_lists_are_cut(tiny, tmp_path):
    save_pretrained(tiny(num_hidden_layers=10), tmp_path)
    change(tmp_path, num_hidden_layers=12)
    with pytest.raises(InputError, match=r"missing model\.layers\.10\..*; and 2 more"):
        load_pretrained(tmp_path)


def test_an_empty_tensor_of_countless_experts(tiny, tmp_path):
    save_pretrained(tiny(), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    safetensors.numpy.save_file(tensors | {name: np.zeros((10**15, 2, 0), np.float32)}, file)
    with pytest.raises(InputError, match=f"unexpected {name}"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("kind", ["nested", "twice", "folder", "pipe", "loop", "file", "scheme"])
def test_a_config_that_is_no_file_or_no_json(tiny, tmp_path, kind):
    path = tmp_path / "model"
    save_pretrained(tiny(), path)
    file = path / "config.json"
    text = file.read_text()
    file.unlink()
    if kind == "nested":
        file.write_text("[" * 100_000)
    elif kind == "twice":
        file.write_text(text.replace("{", '{"rms_norm_eps": 1.0,', 1))
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "loop":
        file.symlink_to(file)
    elif kind == "file":
        path = path / "model.safetensors"
    else:
        path = "https://example.org/model"
    with pytest.raises(InputError):
        load_pretrained(path)


@pytest.mark.parametrize("entry", ["thesis.tex", ".git/", "data.json"])
def test_what_is_not_a_model_is_never_deleted(tiny, tmp_path, entry):
    save_pretrained(tiny(), tmp_path / "work")
    mine = tmp_path / "work" / entry
    mine.mkdir() if entry.endswith("/") else mine.write_text("mine")
    with pytest.raises(InputError, match=f"holds other things than a model .{entry.strip('/')}"):
        save_pretrained(tiny(seed=1), tmp_path / "work")
    assert mine.exists() and [file.name for file in tmp_path.iterdir()] == ["work"]


def test_places_where_no_model_can_be_saved(tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", "gs://bucket/model"):
        with pytest.raises(InputError):
            save_pretrained(tiny(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_saving_over_a_model_keeps_its_tokenizer(tiny, tmp_path):
    tokenizer = Tokenizer.word_level(["good"])
    save_pretrained(tiny(), tmp_path / "model", tokenizer)
    save_pretrained(tiny(seed=1), tmp_path / "model")
    assert Tokenizer.load(tmp_path / "model").fingerprint == tokenizer.fingerprint


def test_a_process_killed_while_saving_leaves_the_model_that_was_there(tiny, tmp_path):
    save_pretrained(tiny(), tmp_path / "model")
    program = (
        "import os, sys\n"
        "from glm_jax.checkpoint import pretrained\n"
        "model = pretrained.load_pretrained(sys.argv[1])\n"
        "write = pretrained.write_safetensors\n"
        "def killed(*arguments):\n"
        "    write(*arguments)\n"
        f"    os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "pretrained.write_safetensors = killed\n"
        "pretrained.save_pretrained(model, sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "model"], check=False)
    assert done.returncode == -signal.SIGKILL
    again = load_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(again.head[...], tiny().head[...])
    save_pretrained(tiny(seed=1), tmp_path / "model")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
