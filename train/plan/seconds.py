"""How long a step takes at published rates, nothing at the same time as anything else."""

from typing import NamedTuple

from glm_jax.train.plan.activations import Text, cache
from glm_jax.train.plan.estimate import Pass, learned, scored
from glm_jax.train.plan.program import Config, memory_of
from glm_jax.train.plan.sizes import Sizes
from glm_jax.train.plan.slices import Chip
from glm_jax.train.ppo.config import PPOConfig


class Traffic(NamedTuple):
    """Bytes of a step on a chip: read from its memory, and received from other chips."""

    reads: float = 0.0
    links: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.reads + other.reads, self.links + other.links)

    def times(self, number: float) -> "Traffic":
        return Traffic(number * self.reads, number * self.links)


def seconds(
    chip: Chip, operations: float, chips: int, traffic: Traffic, every: int
) -> dict[str, float]:
    """Seconds of a step, and of its parts: products, reads of weights and cache, links; and of the
    `every` steps that are lost at most when a run is preempted."""
    products = operations / chips / chip.flops
    reads, links = traffic.reads / chip.bandwidth, traffic.links / chip.links
    step = products + reads + links
    return {
        "step_seconds": step,
        "products_seconds": products,
        "reads_seconds": reads,
        "links_seconds": links,
        "utilisation": products / step if step else 0.0,
        "lost_to_a_preemption_seconds": every * step,
    }


def decoding(config: Config, of: Sizes) -> Traffic:
    """Each token reads all weights and the cache; of each layer it adds up two products."""
    if not isinstance(config, PPOConfig):
        return Traffic()
    drawn, (actor, *_) = scored(config, of, "ppo.rollout_rows"), of.trained
    token = drawn._replace(tokens=1)
    tokens = config.ppo.sampling.max_new_tokens * config.ppo.rows / drawn.rows
    sums = _sums(token, 2) if of.mesh.tensor > 1 else 0.0
    return Traffic(actor.gathered + cache(drawn), sums).times(tokens)


def training(config: Config, of: Sizes) -> Traffic:
    """Of scoring and updates: weights are gathered along fsdp for each pass, gradients go the other
    way, and the products that `tensor` splits add up the residual stream."""
    found = Traffic()
    if isinstance(config, PPOConfig):
        hyper, text = config.ppo, scored(config, of)
        models = [*of.trained, *of.frozen]
        # the actor is not asked again where its log-probs are those of the draw
        models = models if hyper.old == "recomputed" else models[1:]
        for weights in models:
            one = Pass(weights, text._replace(model=weights.model), 0, None)
            found += _pass(one, of, 1, 0).times(hyper.rows / text.rows)
        times = hyper.updates * hyper.micro_batches
    else:
        rows = config.memory.rows or config.batch_size
        times = config.batch_size / rows
        for weights in of.frozen:
            found += _pass(learned(config, of)[0]._replace(weights=weights), of, 1, 0).times(times)
    memory = memory_of(config)
    again = memory.layerwise or memory.remat != "none"
    forward = 2 if again else 1
    for one in learned(config, of):
        found += _pass(one, of, forward, 1).times(times)
    return found


def _pass(one: Pass, of: Sizes, forward: int, backward: int) -> Traffic:
    weights, mesh, passes = one.weights, of.mesh, forward + backward
    links = 0.0
    if mesh.fsdp > 1:
        links += weights.gathered * (passes + backward)
    if mesh.data * mesh.expert > 1:
        links += weights.cast * backward
    if mesh.tensor > 1:
        links += _sums(one.text, 2 * passes)
    return Traffic(weights.gathered * (passes + backward), links)


def _sums(text: Text, number: int) -> float:
    return number * text.model.num_hidden_layers * text.stream
