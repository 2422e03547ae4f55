"""Reward models: a scalar head learns from pairs which response people prefer."""

import shutil
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
from flax import nnx
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from glm_jax.attention import check_platform
from glm_jax.checkpoint.pretrained import architecture_of, load_pretrained, save_pretrained
from glm_jax.configuration import configuration, required
from glm_jax.data.batches import pair_arrays
from glm_jax.data.packing import Plan
from glm_jax.data.pair_batches import PairBatches, margins_and_weights
from glm_jax.data.pair_table import opening
from glm_jax.data.records import Dialogue, Pair, read
from glm_jax.data.splits import hold_out
from glm_jax.errors import InputError
from glm_jax.mesh import MeshConfig, mesh_for, on_mesh
from glm_jax.model import with_head
from glm_jax.processes import decided, leads
from glm_jax.sharding import placed
from glm_jax.text.tokenizer import Tokenizer
from glm_jax.train import loop
from glm_jax.train.heldout_pairs import EVALUATIONS, HeldOut, kept, watching
from glm_jax.train.optimizer import OptimizerConfig, optimizer
from glm_jax.train.progress import console
from glm_jax.train.reports import reward_report
from glm_jax.train.reward_step import Ranking, step
from glm_jax.train.run_folder import begun, claim, read_rows, write_json
from glm_jax.train.score_shift import centred
from glm_jax.train.update import MemoryConfig, start


@configuration
class RewardConfig:
    run: str = ""
    "the run's folder; the reward model comes to lie in its subfolder `model`"
    model: str = ""
    "folder of the model whose trunk it starts from, as a rule the SFT model"
    pairs: str = ""
    "file of pairs, without ties; their `margin` and `weight` enter the loss where they are given"
    max_length: PositiveInt = 256
    "tokens of prompt and response together"
    widths: PositiveInt = 3
    "widths of the rows that pairs are packed into; each is compiled once"
    epochs: PositiveFloat = 1.0
    batch_size: PositiveInt = 64
    "pairs"
    l2: NonNegativeFloat = 0.01
    "weight of (r_w^2 + r_l^2) in the loss, which holds the level of the scores"
    centring: NonNegativeFloat = 0.0
    "weight of (r_w + r_l)^2 in the loss, which holds the level and leaves the difference alone"
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    "the chance that a label is wrong, as the loss supposes"
    heldout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    "the share of the prompts whose pairs are held out; the model with the least loss is kept; or"
    heldout_pairs: str = ""
    "a file of pairs to hold against it; best unbalanced, since they are reported both ways"
    evaluate_every: PositiveInt = 50
    "steps between evaluations on the held-out pairs"
    patience: PositiveInt | None = None
    "training ends after so many evaluations in a row without a lower loss; None: never early"
    reference: str = ""
    "file of dialogues whose mean score becomes 0 once the model is trained; none: no shift"
    mesh: MeshConfig = MeshConfig()
    memory: MemoryConfig = MemoryConfig()
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-4)
    checkpoint_every: PositiveInt = 100
    seed: NonNegativeInt = 0

    def __post_init__(self):
        if self.heldout and self.heldout_pairs:
            raise InputError("give `heldout`, a share, or `heldout_pairs`, a file; not both")
        if self.patience and not (self.heldout or self.heldout_pairs):
            raise InputError("patience needs held-out pairs: set `heldout` or `heldout_pairs`")

    @property
    def ranking(self) -> Ranking:
        return Ranking(self.l2, self.centring, self.label_smoothing)

    def rows_at_once(self, plan: Plan) -> int:
        """Rows of a packed batch that go through the backward pass at a time: as many as hold no
        more tokens than `memory.rows` pairs of the greatest length, and at least one a device."""
        ways = self.mesh.rows
        if self.memory.rows is None:
            return plan.rows
        most = self.memory.rows * 2 * self.max_length // plan.widths[-1]
        fit = (n for n in range(ways, plan.rows + 1, ways) if plan.rows % n == 0 and n <= most)
        return max(fit, default=ways)


def run(config: RewardConfig, label: str = "reward model") -> Path:
    """Trains, or resumes training, and returns the folder of the reward model."""
    required(config, "run", "model", "pairs")
    output = Path(config.run) / "model"
    if begun(config.run, config) and output.exists():
        if leads():
            console.print(
                f"{label}: finished, it lies in {output}", highlight=False, soft_wrap=True
            )
        return output
    tokenizer = Tokenizer.load(config.model)
    check_platform(config.memory.attention, jax.default_backend())
    rows = config.memory.row_counts(config.batch_size, config.optimizer)
    mesh = mesh_for(config.mesh, [architecture_of(config.model)], rows)
    model = load_pretrained(config.model, mesh=mesh)
    model = with_head(model, "reward", nnx.Rngs(config.seed))
    pairs, held_out = _split(config)
    arrays, counts = pair_arrays(pairs, tokenizer, config.max_length)
    reference = read(config.reference, Dialogue) if config.reference else []
    watched = _held_out(held_out, tokenizer, config)
    shared = config.memory.attention == "plain"  # kernels know no parts of a text
    steps = max(round(config.epochs * len(arrays.rows_N) / config.batch_size), 1)
    batches = PairBatches(
        arrays, *margins_and_weights([pairs[row] for row in arrays.rows_N]),
        batch=config.batch_size, steps=steps, seed=config.seed, widths=config.widths,
        unit=config.mesh.rows, shared=shared,
    )  # fmt: skip
    folder = claim(config.run, config)
    write_json(folder / "counts.json", counts)
    optimiser = optimizer(config.optimizer, steps)
    memory = config.memory.of_rows(config.rows_at_once(batches.plan), batches.plan.rows)
    with on_mesh(mesh):
        state = loop.train(
            folder,
            placed(start(placed(model, mesh), optimiser), mesh),
            partial(step, optimiser=optimiser, ranking=config.ranking, memory=memory),
            batches.__getitem__,
            steps,
            label=label,
            checkpoint_every=config.checkpoint_every,
            watch_every=config.evaluate_every,
            watch=watched and watching(folder, watched, tokenizer, config.patience),
        )
        best = folder / "best"
        if watched and leads():
            found = kept(read_rows(folder / EVALUATIONS))
            console.print(
                f"{label}: kept the model after step {found['step']} of "
                f"{len(read_rows(folder / 'metrics.jsonl'))}",
                highlight=False,
            )  # fmt: skip
        model = load_pretrained(best, mesh=mesh) if watched else state.model
        model = centred(model, tokenizer, reference, config.max_length) if reference else model
        if watched:
            watched.write(folder / "scores.jsonl", model)
    if watched and leads():
        trained = [pairs[row] for row in arrays.rows_N]
        reward_report.write(folder, training=trained, held_out=held_out, tokenizer=tokenizer)
    save_pretrained(model, output, tokenizer)
    loop.finish(folder)
    decided(partial(shutil.rmtree, best, ignore_errors=True))
    return output


def _held_out(pairs: list[Pair], tokenizer: Tokenizer, config: RewardConfig) -> HeldOut | None:
    if not pairs:
        return None
    batch = config.memory.rows or config.batch_size
    return HeldOut.of(
        pairs, tokenizer, config.max_length, batch=batch, unit=config.mesh.rows, seed=config.seed,
        memory=config.memory,
    )  # fmt: skip


def _split(config: RewardConfig) -> tuple[list[Pair], list[Pair]]:
    """The pairs to learn from and those held out, without ties and without a prompt in both."""

    def of(path: str) -> list[Pair]:
        pairs = [pair for pair in read(path, Pair) if not pair.tie]
        if not pairs:
            raise InputError(f"{path}: all pairs are ties, which nothing is learned or told from")
        return pairs

    pairs = of(config.pairs)
    if config.heldout_pairs:
        return pairs, _unseen(of(config.heldout_pairs), pairs, config)
    if not config.heldout:
        return pairs, []
    training, held_out = hold_out(pairs, config.heldout, config.seed)
    if not (training and held_out):
        raise InputError(
            f"{config.pairs}: heldout ({config.heldout}) leaves {len(training)} pairs to learn "
            f"from and {len(held_out)} held out; both need some"
        )
    return training, held_out


def _unseen(held_out: list[Pair], pairs: list[Pair], config: RewardConfig) -> list[Pair]:
    """The held-out pairs whose first user message begins no pair of training."""
    seen = {opening(pair.prompt) for pair in pairs}
    unseen = [pair for pair in held_out if opening(pair.prompt) not in seen]
    if not unseen:
        raise InputError(
            f"{config.heldout_pairs}: every first user message stands in {config.pairs} too; hold "
            "out other prompts, as `glm-rlhf data split` does"
        )
    if (shared := len(held_out) - len(unseen)) and leads():
        console.print(
            f"left out {shared} of {len(held_out)} held-out pairs: their first user messages are "
            "trained on",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return unseen
