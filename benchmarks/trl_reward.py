"""TRL's RewardTrainer on the pairs that `benchmarks.train reward --tokens FILE.npz` wrote.

    python benchmarks/trl_reward.py FILE.npz [--layers 4 --d 256 ...]

For an environment with trl and torch, without glm-rlhf. The model is a Llama with a score, random
and of the same shape; the tokens are the same, in the same order and batches. Gradient
checkpointing, which is on by default and costs a second forward pass, is off. Prints JSON.
"""

import argparse
import json
import os
import tempfile
import time

import numpy as np
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast


class Clock(transformers.TrainerCallback):
    """When each step ended."""

    def __init__(self):
        self.ends, self.cpu = [], []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())
        self.cpu.append(time.process_time())


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    sizes = {"layers": 4, "d": 256, "heads": 4, "kv": 2, "ffn": 688, "vocab": 4096, "warmup": 2}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size, help=f"default {size}")
    return parser.parse_args()


def sides(file: str) -> tuple[dict[str, list[list[int]]], int]:
    """chosen_ids and rejected_ids, and the pairs of a batch."""
    with np.load(file) as stored:
        found = {}
        for side in ("chosen", "rejected"):
            cuts = np.cumsum(stored[f"{side}_lengths"])[:-1]
            found[f"{side}_ids"] = [row.tolist() for row in np.split(stored[side], cuts)]
        return found, int(stored["batch"])


def measure(o: argparse.Namespace) -> dict:
    columns, batch = sides(o.file)
    longest = max(len(row) for rows in columns.values() for row in rows)
    model = LlamaForSequenceClassification(
        LlamaConfig(
            vocab_size=o.vocab, hidden_size=o.d, intermediate_size=o.ffn,
            num_hidden_layers=o.layers, num_attention_heads=o.heads, num_key_value_heads=o.kv,
            head_dim=o.d // o.heads, max_position_embeddings=longest, num_labels=1, pad_token_id=0,
            attention_bias=True,
        )
    )  # fmt: skip
    words = {"<pad>": 0, "<unk>": 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<unk>")), pad_token="<pad>",
        eos_token="<pad>", unk_token="<unk>",
    )  # fmt: skip
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        config = trl.RewardConfig(
            folder, per_device_train_batch_size=batch, num_train_epochs=1, max_length=longest,
            gradient_checkpointing=False, bf16=False, use_cpu=True, report_to="none",
            save_strategy="no", logging_steps=1, train_sampling_strategy="sequential",
            learning_rate=1e-5, disable_tqdm=True,
        )  # fmt: skip
        trainer = trl.RewardTrainer(
            model, config, train_dataset=Dataset.from_dict(columns), processing_class=tokenizer,
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    lengths = np.array([[len(row) for row in rows] for rows in columns.values()])
    batches = lengths.reshape(2, -1, batch)
    area = 2 * batch * batches.max(axis=(0, 2))
    counted = slice(o.warmup, None)
    seconds = clock.ends[-1] - clock.ends[o.warmup - 1]
    steps = len(clock.ends) - o.warmup
    return {
        "pairs_per_second": steps * batch / seconds,
        "real_tokens_per_second": int(batches[:, counted].sum()) / seconds,
        "seconds_of_each_step": np.diff(clock.ends).tolist(),
        "cpu_seconds": clock.cpu[-1] - clock.cpu[o.warmup - 1],
        "tokens_per_pair": float(lengths.sum() / lengths.shape[1]),
        "padding": float(1 - lengths.sum() / area.sum()),
        "loss": trainer.state.log_history[-2]["loss"],
        "options": vars(o),
        "load": os.getloadavg()[0],
        "versions": {
            "trl": trl.__version__, "torch": torch.__version__,
            "transformers": transformers.__version__, "threads": torch.get_num_threads(),
        },
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(measure(options())))
