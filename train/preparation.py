"""Where a pipeline's data come from: the proving ground, or files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveInt

from glm_jax.configuration import configuration
from glm_jax.data import records
from glm_jax.data.proving_ground import world
from glm_jax.data.records import Dialogue, Pair, Prompt
from glm_jax.errors import InputError
from glm_jax.text.tokenizer import Tokenizer

RANKED = 5  # one of so many prompts has four responses and all six pairs, the others have two


@configuration
class WorldConfig:
    """The proving ground: how much of it is drawn, and how its annotators judge."""

    demonstrations: PositiveInt = 7500
    pair_prompts: Annotated[int, Field(ge=RANKED)] = 3000
    "prompts whose responses are compared"
    heldout_pair_prompts: Annotated[int, Field(ge=RANKED)] = 2000
    "for the second reward model, which no policy is trained on"
    test_pair_prompts: Annotated[int, Field(ge=RANKED)] = 1200
    rl_prompts: PositiveInt = 1500
    eval_prompts: PositiveInt = 960
    "four fifths of them of the families that are trained"
    watch_prompts: PositiveInt = 256
    "of those, answered during PPO"
    length_bias: NonNegativeFloat = 0.05
    "the annotators' liking for each further token; the control has none"


@configuration
class FilesConfig:
    """The same from files of JSON lines."""

    sft: tuple[str, ...] = ()
    pairs: str = ""
    test_pairs: str = ""
    category: str | None = None
    "the field of a pair that names its set"
    vocab_size: PositiveInt = 8192
    "of the tokenizer, which is trained on the supervised responses and the training pairs"
    rl_prompts: PositiveInt = 2000
    "of the training pairs' prompts"
    eval_prompts: PositiveInt = 400
    "of the test pairs' prompts"
    watch_prompts: PositiveInt = 64
    "of those, answered during PPO"


class Inputs(NamedTuple):
    """What the files of a FilesConfig hold."""

    dialogues: list[Dialogue]
    pairs: list[Pair]
    test_pairs: list[Pair]


def write_world(folder: Path, config: WorldConfig, seed: int) -> None:
    """Writes the dialogues, the prompts of every split and the tokenizer."""
    records.write(folder / "sft.jsonl", world.demonstrations(config.demonstrations, seed))
    splits = {
        "pairs": config.pair_prompts, "pairs_heldout": config.heldout_pair_prompts,
        "pairs_test": config.test_pair_prompts, "rl": config.rl_prompts,
        "eval": config.eval_prompts,
    }  # fmt: skip
    for split, n in splits.items():
        prompts = world.prompts(split, n, seed)
        if split.startswith("pairs"):
            ranked, prompts = prompts[: n // RANKED], prompts[n // RANKED :]
            records.write(folder / f"{split}_ranked_prompts.jsonl", ranked)
        records.write(folder / f"{split}_prompts.jsonl", prompts)
    held_out = world.prompts("eval", config.eval_prompts, seed)
    watched = [prompt for prompt in held_out if prompt.category in world.TRAINABLE]
    records.write(folder / "watch_prompts.jsonl", watched[: config.watch_prompts])
    Tokenizer.word_level(world.vocabulary()).save(folder / "tokenizer")


def read_files(config: FilesConfig) -> Inputs:
    """Reads everything, so that what is malformed is said before anything is written."""
    if not (config.sft and config.pairs and config.test_pairs):
        raise InputError("files: `sft`, `pairs` and `test_pairs` are needed")
    dialogues = []
    for file in config.sft:
        name = Path(file).name.split(".")[0]
        dialogues += [
            Dialogue(id=f"{name}/{d.id}", prompt=d.prompt, response=d.response, category=name)
            for d in records.read(file, Dialogue)
        ]
    pairs = records.read(config.pairs, Pair, category=config.category)
    return Inputs(dialogues, pairs, records.read(config.test_pairs, Pair, category=config.category))


def write_files(folder: Path, config: FilesConfig, inputs: Inputs, seed: int) -> None:
    """Writes the dialogues, pairs, prompts, and a tokenizer trained on the responses."""
    dialogues, pairs, test = inputs
    texts = [d.response for d in dialogues]
    texts += [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    tokenizer = Tokenizer.train_bpe(texts, config.vocab_size)
    records.write(folder / "sft.jsonl", dialogues)
    held_out = {records.prompt_key(pair.prompt) for pair in test}
    rl = [p for p in _prompts(pairs, seed) if records.prompt_key(p.prompt) not in held_out]
    records.write(folder / "rl_prompts.jsonl", rl[: config.rl_prompts])
    eval_prompts = _prompts(test, seed)[: config.eval_prompts]
    records.write(folder / "eval_prompts.jsonl", eval_prompts)
    records.write(folder / "watch_prompts.jsonl", eval_prompts[: config.watch_prompts])
    records.write(folder / "pairs.jsonl", pairs)
    records.write(folder / "pairs_test.jsonl", test)
    tokenizer.save(folder / "tokenizer")


def _prompts(pairs: Iterable[Pair], seed: int) -> list[Prompt]:
    """The pairs' different prompts, in an order drawn by the seed."""
    found = {
        key: Prompt(id=f"{pair.category or 'prompt'}/{pair.id}", prompt=pair.prompt,
                    category=pair.category)
        for pair in pairs
        for key in [records.prompt_key(pair.prompt)]
    }  # fmt: skip
    return [found[key] for key in sorted(found, key=lambda key: records.draw(seed, key))]
