"""The pictures of docs/collecting.md: `python -m docs.screenshots`, from the repository's root.

Needs Chromium, and a font with Chinese, on the system. The administrator's page
shows labels of simulated annotators, who work four days in a minute: the clocks of server and
annotators go SPEED times as fast as ours, and nights are left out.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import Engine, select

from benchmarks.collection.server import PASSWORD, free_port, samples
from glm_jax.data.collection import loading, people, store
from glm_jax.data.collection.settings import CollectionConfig
from glm_jax.data.collection.simulation.simulate import simulate
from glm_jax.data.collection.tables import Person
from glm_jax.data.collection.web.app import create_app
from glm_jax.data.proving_ground.task import Task
from glm_jax.data.proving_ground.utility import utility
from glm_jax.data.records import Message, Pair, Sample

IMAGES = Path(__file__).parent / "images"
DESK = {"viewport": {"width": 1200, "height": 900}, "reduced_motion": "reduce"}
PHONE = {
    "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True,
    "reduced_motion": "reduce",
}  # fmt: skip
NO_MOUSE = "--blink-settings=primaryHoverType=1,availableHoverTypes=1"  # pages name no keys then
STAFF = {
    "anna": "annotator", "ben": "annotator", "chen": "annotator", "doris": "annotator",
    "emil": "annotator", "frieda": "senior",
}  # fmt: skip
PROMPTS, PAIRS = 160, 24  # pairs of each of the staff on a day
PACE, SPEED = 25.0, 150.0  # simulated seconds a pair, and in one of ours
MORNING, DAYS = datetime(2026, 3, 2, 9, tzinfo=UTC), 4
CONFIG = CollectionConfig(overlap=0.5, practice=8, pass_mark=0.6)
ENGLISH: tuple[list[Message], str, str] = (
    [
        {
            "role": "user",
            "content": "I have a list of numbers in Python. How do I get the largest?",
        },
        {"role": "assistant", "content": "With `max(numbers)`."},
        {"role": "user", "content": "And the three largest, in order?"},
    ],
    "Sort the list and take the first three:\n\n"
    "```python\nsorted(numbers, reverse=True)[:3]\n```\n\n"
    "For a long list, `heapq.nlargest(3, numbers)` does the same without sorting all of it.",
    "There are many ways to do this! Here are some things to keep in mind:\n\n"
    "1. Lists in Python are **ordered**.\n2. You can sort them with `numbers.sort()`.\n"
    "3. The largest are then at the end:\n\n```python\nnumbers.sort()\nnumbers[-3:]\n```",
)
CHINESE: tuple[list[Message], str, str] = (
    [{"role": "user", "content": "为什么天空是蓝色的？请用一两句话解释。"}],
    "阳光穿过大气时，空气分子把波长较短的**蓝光**散射得更多，所以我们从各个方向看到的都是蓝光。",
    "因为天空反射了海洋的颜色。海洋是蓝色的，所以天空看起来也是蓝色的。",
)


@contextmanager
def serving(
    engine: Engine, config: CollectionConfig, clock: Callable[[], float] = time.time
) -> Iterator[str]:
    """Where the pages are as long as this lasts."""
    port = free_port()
    app = create_app(engine, config, clock=clock)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def compared(
    page: Any, folder: Path, image: str, language: str, shown: tuple[list[Message], str, str]
) -> None:
    """The page on which two answers are compared, after a choice."""
    prompt, chosen, rejected = shown
    engine = store.open_store(str(folder / f"{language}.db"))
    config = CollectionConfig(language=language)  # type: ignore[arg-type]
    with store.writing(engine) as db:
        pair = Pair(id="pair", prompt=prompt, chosen=chosen, rejected=rejected)
        loading.load_pairs(db, [pair], config)
        secret = people.invite(db, "anna", "annotator", 0.0)
    with serving(engine, config) as url:
        page.goto(f"{url}/enter/{secret}")
        page.locator("main button").click()
        page.locator("label", has=page.locator("[value='left-1']")).click()
        page.screenshot(path=IMAGES / image, full_page=True)


def gold(found: list[Sample]) -> Iterator[Pair]:
    """Of each prompt the first two answers, if one of them is clearly better."""
    for one, other in zip(found[::2], found[1::2], strict=True):
        task = Task.from_record(one.task)
        difference = utility(task, one.text, True) - utility(task, other.text, True)
        better, worse = (one, other) if difference > 0 else (other, one)
        if abs(difference) > 0.3:
            yield Pair(id=one.id, prompt=one.prompt, chosen=better.text, rejected=worse.text)


@contextmanager
def worked(folder: Path) -> Iterator[str]:
    """A collection at whose pages the staff has worked for days."""
    engine = store.open_store(str(folder / "administrator.db"))
    shown, known = list(samples(PROMPTS, 3, 0)), list(samples(80, 2, 1))
    answered = list(gold(known))
    morning, woke = MORNING, time.monotonic()

    def clock() -> float:
        return morning.timestamp() + SPEED * (time.monotonic() - woke)

    with store.writing(engine) as db:
        loading.load_gold(db, answered[:8], CONFIG, purpose="practice")
        loading.load_gold(db, answered[8:], CONFIG)
        loading.load_pairs(db, shown, CONFIG)
        people.invite(db, "administrator", "administrator", clock())
        leader = db.scalars(select(Person)).one()
        people.set_password(db, leader, PASSWORD)
        secrets = [people.invite(db, name, role, clock()) for name, role in STAFF.items()]
    with serving(engine, CONFIG, clock) as url:
        links = [f"{url}/enter/{secret}" for secret in secrets]
        for day in range(DAYS):
            morning, woke = MORNING + timedelta(days=day), time.monotonic()
            simulate([*shown, *known], links, pairs=PAIRS, pace=PACE, speed=SPEED)
        yield url


def led(page: Any, url: str) -> None:
    """The administrator's page, down to how annotators agree."""
    page.goto(f"{url}/login")
    page.locator("#name").fill("administrator")
    page.locator("#password").fill(PASSWORD)
    page.locator("main button.send").click()
    page.wait_for_url("**/admin")
    end = page.locator("#bias").bounding_box()["y"]
    shown = {"x": 0, "y": 0, "width": DESK["viewport"]["width"], "height": end}
    page.screenshot(path=IMAGES / "administrator.png", full_page=True, clip=shown)


def launched(playwright: Any, *options: str) -> Any:
    arguments = ["--no-sandbox", *options]
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)


def main() -> None:
    from playwright.sync_api import sync_playwright

    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        worked(Path(folder)) as url,
        sync_playwright() as playwright,
    ):
        here = Path(folder)
        with launched(playwright) as desk:
            led(desk.new_page(**DESK), url)
            compared(desk.new_page(**DESK), here, "annotator.png", "en", ENGLISH)
        with launched(playwright, NO_MOUSE) as phone:
            compared(phone.new_page(**PHONE), here, "phone.png", "zh", CHINESE)


if __name__ == "__main__":
    main()
