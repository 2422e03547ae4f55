"""How fast files of preference pairs are checked, filtered and balanced, and in how much memory.

    python -m benchmarks.data [--pairs 10000000] [--part 100000] [--folder DIR]

Makes a file of pairs of about 1 kB in a temporary folder, which is removed. Each command runs as
users run it; its memory is the largest sum of what its processes had at one time (shared pages
counted for each). Tokens are counted, and near-duplicate prompts looked for, on the first `part`
pairs. Prints one JSON object.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

PROGRAM = [sys.executable, "-c", "from glm_jax.train.cli import program; program()"]
WORDS = (
    "stone", "river", "light", "paper", "quiet", "seven", "green", "mountain", "letter", "answer",
)  # fmt: skip
JUDGED = ((0, 1), (1, 2), (0, 2), (0, 1))  # three responses to a prompt, one pair of them twice


def rows(seed: int = 0) -> Iterator[str]:
    """Lines of pairs, without end: four to a prompt, some judgements turned around."""
    rng = random.Random(seed)
    texts = [" ".join(rng.choices(WORDS, k=1000)) for _ in range(100)]

    def text(length: int) -> str:
        whole = rng.choice(texts)
        start = rng.randrange(len(whole) - length)
        return whole[start : start + length]

    number = 0
    while True:
        prompt = f"{number} {text(rng.randrange(150, 250))}"
        responses = [text(int(200 + 400 * rng.random() ** 2)) for _ in range(3)]
        category = rng.choice(("chat", "code", "questions", "summaries"))
        for better, worse in JUDGED:
            if rng.random() < 0.1:
                better, worse = worse, better
            pair = {
                "id": f"pair-{number}", "prompt": [{"role": "user", "content": prompt}],
                "chosen": responses[better], "rejected": responses[worse],
                "category": category, "language": "en",
                "annotator": f"annotator-{rng.randrange(200)}",
                "milliseconds": rng.randrange(5000, 90000),
            }  # fmt: skip
            yield json.dumps(pair) + "\n"
            number += 1


def measure(pairs: int, *command: str) -> dict[str, float]:
    """Runs one of the program's commands."""
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*PROGRAM, *command], stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - start
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)}:\n{output.read().decode()}")
    return {"pairs_per_second": pairs / seconds, "seconds": seconds, "peak_gb": peak / 1e9}


def memory(root: int) -> int:
    """Bytes that a process and all below it hold at this moment."""
    below, sizes = {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                status = Path(entry.path, "status").read_text()
            except OSError:  # it has just ended
                continue
            values = dict(line.split(":", 1) for line in status.splitlines())
            below.setdefault(int(values["PPid"]), []).append(int(entry.name))
            sizes[int(entry.name)] = int(values.get("VmRSS", "0 kB").split()[0]) * 1024
    found, left = 0, [root]
    while left:
        process = left.pop()
        found += sizes.get(process, 0)
        left += below.get(process, [])
    return found


def run(folder: Path, pairs: int, part: int) -> dict[str, object]:
    from glm_jax.text.tokenizer import Tokenizer

    file, small, kept = (str(folder / f"{name}.jsonl") for name in ("pairs", "part", "kept"))
    for path, n in ((file, pairs), (small, part)):
        with open(path, "w") as lines:
            lines.writelines(islice(rows(), n))
    model, output = str(folder / "model"), str(folder / "out.jsonl")
    Tokenizer.train_bpe((json.loads(row)["chosen"] for row in islice(rows(), 500)), 1000).save(
        model
    )
    found = {"check": measure(pairs, "data", "check", file)}
    found["filter"] = measure(pairs, "data", "filter", file, "--output", kept)
    with open(kept, "rb") as lines:
        left = sum(1 for _ in lines)
    balance = ("data", "balance", kept, "--output", output)
    found["balance by characters"] = measure(left, *balance, "--by", "characters")
    tokens = ("data", "balance", small, "--output", output, "--tokenizer", model)
    found["balance by tokens"] = measure(part, *tokens)
    found["balance by tokens, counted before"] = measure(part, *tokens)
    found["filter, near duplicates too"] = measure(
        part, "data", "filter", small, "--output", output, "--near-duplicates", "0.8"
    )
    return {
        "pairs": pairs, "bytes_per_pair": os.path.getsize(file) / pairs, "kept": left,
        "part": part, "cores": len(os.sched_getaffinity(0)), "python": platform.python_version(),
        **found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--part", type=int, default=100_000, help="pairs for the slow ones")
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pairs-", dir=arguments.folder))
    try:
        print(json.dumps(run(folder, arguments.pairs, arguments.part), indent=2))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
