"""Metrics for people to look at: TensorBoard (without TensorFlow), Weights & Biases.

What counts are the run's JSON lines; these are copies of them.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from glm_jax.errors import InputError
from glm_jax.processes import leads

Tracker = Literal["tensorboard", "wandb"]
Log = Callable[[int, Mapping[str, float | None]], None]

_MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def check(names: Sequence[Tracker]) -> None:
    """Raises InputError when one of them is not installed."""
    for name in names:
        if find_spec(_MODULES[name]) is None:
            raise InputError(
                f"trackers: {name} needs the package {_MODULES[name]}, which is not installed: "
                f"pip install {_MODULES[name]}, or leave {name} out"
            )


@contextmanager
def opened(
    names: Sequence[Tracker], folder: Path, start: int, config: Mapping[str, Any]
) -> Iterator[Log]:
    """Gives `log(step, metrics)`, which tells every tracker; numbers that are None are left out.

    A run that goes on from step `start` takes back what was told of that step and later ones.
    """
    with ExitStack() as stack:
        open_one = {"tensorboard": _tensorboard, "wandb": _wandb}
        logs = [
            stack.enter_context(open_one[name](folder, start, config)) for name in names if leads()
        ]

        def log(step: int, metrics: Mapping[str, float | None]) -> None:
            known = {name: value for name, value in metrics.items() if value is not None}
            for one in logs:
                one(step, known)

        yield log


@contextmanager
def _tensorboard(folder: Path, start: int, config: Mapping[str, Any]) -> Iterator[Log]:
    from tensorboardX import SummaryWriter

    # TensorBoard drops what earlier files hold of `purge_step` and later ones; files are named by
    # the second, and one of the same name would be written over
    writer = SummaryWriter(
        str(folder / "tensorboard"), purge_step=start, flush_secs=1,
        filename_suffix=f".{start:08d}",
    )  # fmt: skip

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    try:
        yield log
    finally:
        writer.close()


@contextmanager
def _wandb(folder: Path, start: int, config: Mapping[str, Any]) -> Iterator[Log]:
    import wandb

    file = folder / "wandb.id"  # a run that goes on is the same one there
    if not file.exists():
        file.write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
    run = wandb.init(
        project="glm-rlhf", name=folder.name, id=file.read_text(encoding="utf-8").strip(),
        dir=str(folder), config=dict(config), resume="allow",
    )  # fmt: skip
    # steps that a resumed run repeats come out the same: W&B keeps those it has
    try:
        yield lambda step, metrics: run.log(dict(metrics), step=step)
    finally:
        run.finish()
