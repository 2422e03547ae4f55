"""`glm-rlhf collect serve` as a process of its own, and made-up answers to compare."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx

from glm_jax.data.proving_ground import world
from glm_jax.data.proving_ground.task import Task
from glm_jax.data.records import Sample

PROGRAM = [sys.executable, "-c", "from glm_jax.train.cli import program; program()"]
PASSWORD = "a password for the load test"
READY = 300.0  # seconds in which a server must answer, also on a busy machine


def samples(prompts: int, n: int, seed: int) -> Iterator[Sample]:
    """n answers to each prompt of the proving ground, as the demonstrations have them."""
    rng = random.Random(seed)
    for prompt in world.prompts("pairs", prompts, seed):
        task = Task.from_record(prompt.task)
        for k in range(n):
            text = (world.habitual if rng.random() < 0.5 else world.faulty)(task, rng)
            yield Sample(
                id=prompt.id, sample=k, prompt=prompt.prompt, text=text, tokens=[], log_probs=[],
                finish="stop", category=prompt.category, task=prompt.task,
            )  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Server:
    """`glm-rlhf collect serve` as a process of its own, always at the same address."""

    def __init__(self, db: str, *arguments: str):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*PROGRAM, "collect", "serve", *arguments, "--db", db, "--port", str(port)]
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Back when it answers; RuntimeError with what it said if it does not."""
        password = {"GLM_RLHF_PASSWORD": PASSWORD}
        self._process = subprocess.Popen(
            self._command, env=os.environ | password, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until = time.monotonic() + READY
        while True:
            try:
                httpx.get(f"{self.url}/health").raise_for_status()
                return
            except httpx.TransportError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self._process.kill()
                    raise RuntimeError(f"no server: {self._process.communicate()[1]}") from None
                time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


def invited(db: str, url: str, n: int) -> list[str]:
    """Personal links of n annotators."""
    names = [f"annotator-{i}" for i in range(n)]
    command = [*PROGRAM, "collect", "invite", "--db", db, "--url", url, *names]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split()[-1] for line in told.splitlines()]
