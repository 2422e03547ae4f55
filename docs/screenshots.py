"""The pictures of docs/collecting.md: `python -m docs.screenshots`, from the repository's root.

Takes the system's Chromium. The administrator's page shows labels of simulated annotators.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.collection.server import PASSWORD, Server, invited, samples
from glm_jax.data import records
from glm_jax.data.collection.simulation.simulate import simulate
from glm_jax.data.records import Message, Pair

IMAGES = Path(__file__).parent / "images"
WIDTH = 1200
ANNOTATORS, PROMPTS = 6, 60
DIALOGUE: list[Message] = [
    {"role": "user", "content": "I have a list of numbers in Python. How do I get the largest?"},
    {"role": "assistant", "content": "With `max(numbers)`."},
    {"role": "user", "content": "And the three largest, in order?"},
]
ANSWERS = (
    "Sort the list and take the first three:\n\n"
    "```python\nsorted(numbers, reverse=True)[:3]\n```\n\n"
    "For a long list, `heapq.nlargest(3, numbers)` does the same without sorting all of it.",
    "There are many ways to do this! Here are some things to keep in mind:\n\n"
    "1. Lists in Python are **ordered**.\n2. You can sort them with `numbers.sort()`.\n"
    "3. The largest are then at the end:\n\n```python\nnumbers.sort()\nnumbers[-3:]\n```",
)


def annotator(browser: Any, folder: Path) -> None:
    """The page on which two answers are compared."""
    pair = Pair(id="largest", prompt=DIALOGUE, chosen=ANSWERS[0], rejected=ANSWERS[1])
    records.write(folder / "pair.jsonl", [pair])
    db = str(folder / "annotator.db")
    with Server(db, str(folder / "pair.jsonl")) as server:
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.goto(invited(db, server.url, 1)[0])
        page.locator("main button").click()
        page.locator("label", has=page.locator("[value='left-1']")).click()
        page.screenshot(path=IMAGES / "annotator.png", full_page=True)


def work(db: str, file: Path) -> None:
    """Annotators of the proving ground label all that there is."""
    shown = list(samples(PROMPTS, 3, 0))
    records.write(file, shown)
    with Server(db, str(file)) as server:
        simulate(shown, invited(db, server.url, ANNOTATORS))


def administrator(browser: Any, db: str) -> None:
    """The administrator's page, after some work."""
    with Server(db) as server:
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.goto(f"{server.url}/login")
        page.locator("#name").fill("administrator")
        page.locator("#password").fill(PASSWORD)
        page.locator("main button.send").click()
        page.wait_for_url("**/admin")
        page.screenshot(path=IMAGES / "administrator.png", full_page=True)


def main() -> None:
    from playwright.sync_api import sync_playwright

    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        db = str(Path(folder) / "administrator.db")
        work(db, Path(folder) / "samples.jsonl")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            annotator(browser, Path(folder))
            administrator(browser, db)
            browser.close()


if __name__ == "__main__":
    main()
