"""Simulated annotators, who compare responses by the true utility and by faults of their own.

Each has his own weights for what he notices, likes length to his own degree, and is noisy; one is
careless. Four responses of one prompt, all compared, are where contradictions (cycles) come from.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from random import Random

from glm_jax.data.proving_ground.task import Task
from glm_jax.data.proving_ground.utility import WEIGHTS, Findings, findings, weigh
from glm_jax.data.records import Pair, Sample
from glm_jax.errors import InputError

LIKING = (0.3, 1.7)  # of length, from the first annotator to the last, times the length bias
CARELESS = 6.0  # times the noise
LENGTH_BIAS = 0.05  # utility a token, on average
NOISE = 0.15  # standard deviation of the difference that an annotator sees
TIE = 0.1  # a difference below it is none


@dataclass(frozen=True, kw_only=True)
class Annotator:
    name: str
    weights: Findings
    per_token: float  # what a token more is worth to him
    noise: float  # standard deviation of the difference that he sees

    def judge(self, sample: Sample) -> float:
        """How good he finds a response, before noise."""
        task = Task.from_record(sample.task)
        found = findings(task, sample.text, ended=sample.finish == "stop")
        return weigh(found, self.weights) + self.per_token * len(sample.text.split())

    def compare(self, first: Sample, second: Sample, rng: Random) -> float:
        """How much better than the second the first seems to him, this time."""
        return self.judge(first) - self.judge(second) + rng.gauss(0, self.noise)


def annotators(n: int, length_bias: float, noise: float, seed: int) -> list[Annotator]:
    """n annotators, the middle one careless; each weighs each finding 0.6 to 1.4 times the truth.

    `length_bias`: utility a token, on average; LIKING says how it differs between them.
    """
    rng = Random(f"{seed}/annotators")
    low, high = LIKING
    return [
        Annotator(
            name=f"annotator-{i}",
            weights=Findings(**{k: w * rng.uniform(0.6, 1.4) for k, w in vars(WEIGHTS).items()}),
            per_token=length_bias * (low + (high - low) * i / max(n - 1, 1)),
            noise=noise * (CARELESS if i == n // 2 else 1.0),
        )
        for i in range(n)
    ]


def annotate(
    samples: Iterable[Sample],
    *,
    n_annotators: int = 8,
    length_bias: float = LENGTH_BIAS,
    noise: float = NOISE,
    tie: float = TIE,
    seed: int,
) -> list[Pair]:
    """Have all pairs of each prompt's samples compared, each by one annotator drawn at random.

    A pair is a tie if the texts are
    equal or the difference that the annotator sees is below `tie`. What becomes of a prompt
    depends on its samples and the seed alone, not on the other prompts or the order.
    Raises InputError for a prompt with one sample only, or without the task it came from.
    """
    staff = annotators(n_annotators, length_bias, noise, seed)
    by_prompt: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.task is None:
            raise InputError(f"sample {sample.id!r} has no task: only the proving ground's do")
        by_prompt[sample.id].append(sample)
    pairs = []
    for prompt_id, responses in sorted(by_prompt.items()):
        if len(responses) < 2:
            raise InputError(f"prompt {prompt_id!r} has one sample; a comparison needs two")
        responses = sorted(responses, key=lambda sample: sample.sample)
        for first, second in combinations(responses, 2):
            rng = Random(f"{seed}/{prompt_id}/{first.sample}/{second.sample}")
            pairs.append(_compare(first, second, rng.choice(staff), tie, rng))
    return pairs


def _compare(first: Sample, second: Sample, annotator: Annotator, tie: float, rng: Random) -> Pair:
    seen = annotator.compare(first, second, rng)
    chosen, rejected = (first, second) if seen >= 0 else (second, first)
    return Pair(
        id=f"{first.id}-{first.sample}-{second.sample}",
        prompt=first.prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        tie=abs(seen) < tie or first.text == second.text,
        category=first.category,
        annotator=annotator.name,
        prompt_id=first.id,
        task=first.task,
    )
