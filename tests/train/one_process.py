"""One process of a run: `one_process.py FOLDER STAGE=CONFIG ...`, one command after another.

Their statuses go to FOLDER/statuses<process>.json. With SIGNAL=KILL, PROCESS=1 and STEP=2 in the
environment, process 1 sends itself that signal after two steps of the last command. The files that
it writes to, checkpoints apart, are listed in FOLDER/wrote<process>.json.
"""

import json
import os
import signal
import sys
from pathlib import Path

from glm_jax.train import loop
from glm_jax.train.cli import leave, main

me = os.environ["JAX_PROCESS_ID"]
folder, *commands = sys.argv[1:]
asked_to_end = loop.asked_to_end


def signalled(step: int) -> bool:
    if step == int(os.environ["STEP"]) and me == os.environ["PROCESS"]:
        os.kill(os.getpid(), getattr(signal, f"SIG{os.environ['SIGNAL']}"))
    return asked_to_end(step)


wrote: set[str] = set()


def opened(event: str, arguments: tuple) -> None:
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        wrote.add(str(arguments[0]))


sys.addaudithook(opened)
statuses = []
for command in commands:
    if command == commands[-1] and "SIGNAL" in os.environ:
        loop.asked_to_end = signalled
    stage, config = command.split("=")
    statuses.append(main([stage, config]))
    runs = str(Path(folder).parent)
    files = [file for file in sorted(wrote) if file.startswith(runs) and "checkpoints" not in file]
    Path(folder, f"statuses{me}.json").write_text(json.dumps(statuses))
    Path(folder, f"wrote{me}.json").write_text(json.dumps(files))
    wrote -= {str(file) for file in Path(folder).glob("*.json")}
leave(statuses[-1])
