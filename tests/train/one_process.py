"""One process of a run: `one_process.py FOLDER STAGE=CONFIG ...`, one command after another.

Their statuses go to FOLDER/statuses<process>.json. With SIGNAL=KILL, PROCESS=1 and STEP=2 in the
environment, process 1 sends itself that signal after two steps of the last command.
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


statuses = []
for command in commands:
    if command == commands[-1] and "SIGNAL" in os.environ:
        loop.asked_to_end = signalled
    stage, config = command.split("=")
    statuses.append(main([stage, config]))
    Path(folder, f"statuses{me}.json").write_text(json.dumps(statuses))
leave(statuses[-1])
