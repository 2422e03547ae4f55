"""The command line `glm-rlhf`. Whatever is heavy is imported when a command needs it."""

import argparse
import importlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NoReturn

from glm_jax.errors import InputError, RunStopped
from glm_jax.train.collection import commands as collection_commands
from glm_jax.train.commands import given, later
from glm_jax.train.platforms import without_absent_tpu
from glm_jax.train.preference import commands as data_commands

STAGES = {
    "pipeline": (
        "pipeline.PipelineConfig",
        "all stages of a run, from supervised data to the report",
    ),
    "sft": ("sft.SFTConfig", "supervised fine-tuning on dialogues"),
    "reward": ("reward.RewardConfig", "train a reward model on preference pairs"),
    "select": ("selection.SelectionConfig", "keep the prompts whose answers differ in reward"),
    "ppo": ("ppo.PPOConfig", "train a policy against a reward model"),
    "dpo": ("dpo.DPOConfig", "train a policy on preference pairs"),
}
TRAINING = "sft", "reward", "ppo", "dpo"
SAMPLING = {
    "max_new_tokens": (int, "longest response"),
    "temperature": (float, "0: the likeliest token each time"),
    "top_k": (int, "draw among so many of the likeliest tokens; 0: among all"),
    "top_p": (float, "draw among the likeliest tokens that reach this probability together"),
    "repeat_ngram": (int, "end a response whose last so many tokens stand in it REPEAT_TIMES"),
    "repeat_times": (int, "see --repeat-ngram"),
}


def program() -> NoReturn:
    """The program `glm-rlhf`."""
    leave(main())


def leave(status: int) -> NoReturn:
    """Ends the program; a process that fails alone does not wait for those that go on."""
    sys.stdout.flush()
    sys.stderr.flush()
    processes = sys.modules.get("glm_jax.processes")
    # a compilation that was interrupted would crash an orderly end
    if status == 130 or (status and processes and not processes.all_end()):
        os._exit(status)
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    2: bad input; 1: a run that stopped itself, or a plan that does not fit; 130: interrupted.
    """
    arguments = _parsed(argv)
    without_absent_tpu()
    show = arguments.traceback or os.environ.get("GLM_RLHF_TRACEBACK") == "1"
    try:
        status = arguments.command(arguments)
    except KeyboardInterrupt:
        if show:
            raise
        print("\nglm-rlhf: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (InputError, OSError) as error:
        if show:
            raise
        print(f"glm-rlhf: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except RunStopped as error:
        if show:
            raise
        print(f"glm-rlhf: stopped: {error}", file=sys.stderr)
        return 1
    return status or 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"glm-rlhf: error: {message} (see {self.prog} --help)\n")


def _parsed(argv: Sequence[str] | None) -> Namespace:
    """The arguments; overrides may also stand behind options, where argparse does not find them."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not (hasattr(arguments, "overrides") and all(map(_is_override, rest))):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _is_override(text: str) -> bool:
    return "=" in text and not text.startswith("-")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="glm-rlhf",
        description="RLHF for GLM models in JAX. Start with: glm-rlhf quickstart",
        epilog="A command that was interrupted goes on where it was when started again.",
    )
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(group: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
        # An option that is not given stays out: its default lives with what it configures.
        found = group.add_parser(
            name, help=text, description=text, argument_default=argparse.SUPPRESS
        )
        found.set_defaults(command=run)
        return found

    def overrides(found: argparse.ArgumentParser) -> None:
        text = "overrides of the configuration, such as seed=1"
        found.add_argument("overrides", nargs="*", metavar="KEY=VALUE", default=[], help=text)

    def options(found: Any, names: Iterable[str]) -> None:
        for name in names:
            kind, text = SAMPLING[name]
            found.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text)

    quickstart = command(
        commands, "quickstart", _quickstart, "the whole pipeline on a small simulated world"
    )
    quickstart.add_argument("--seed", type=int, help="the same seed gives the same numbers")
    overrides(quickstart)

    for stage, (_, text) in STAGES.items():
        found = command(commands, stage, _stage, text)
        found.set_defaults(stage=stage)
        found.add_argument("config", metavar="CONFIG", help="a YAML file, or a name from `configs`")
        overrides(found)

    sample = command(commands, "sample", _sample, "draw responses of a model to prompts; resumable")
    sample.add_argument("model", metavar="MODEL", help="folder of a trained model")
    sample.add_argument("prompts", metavar="PROMPTS", help="JSON lines")
    sample.add_argument("--output", required=True, metavar="FILE", help="JSON lines")
    sample.add_argument("--n", type=int, help="responses to each prompt")
    options(sample, SAMPLING)
    sample.add_argument("--max-prompt", type=int, help="longer prompts are cut from the left")
    sample.add_argument("--batch-size", type=int)
    sample.add_argument("--seed", type=int)

    chat = command(commands, "chat", later("chat.run"), "talk to a model in the terminal")
    chat.add_argument("model", metavar="PATH", help="folder of the model")
    chat.add_argument("--system", metavar="TEXT", help="what the model is told before all else")
    options(chat, ("max_new_tokens", "temperature", "top_p"))
    chat.add_argument("--seed", type=int, help="the same seed and messages give the same answers")
    dtypes = ("float32", "bfloat16")
    chat.add_argument("--dtype", choices=dtypes, help="of the weights; float32 unless given")

    data = commands.add_parser("data", help="look at preference pairs, filter and balance them")
    data_commands.add(partial(command, data.add_subparsers(metavar="COMMAND", required=True)))

    collect = commands.add_parser("collect", help="have people compare answers, in their browsers")
    collection_commands.add(
        partial(command, collect.add_subparsers(metavar="COMMAND", required=True)), options
    )

    plan = command(
        commands, "plan", _plan, "whether a run fits a TPU slice or GPUs, found out without them"
    )
    plan.add_argument("config", metavar="CONFIG", help="a YAML file, or a name from `configs`")
    where = plan.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--topology", metavar="SLICE", help="compile for v5p:4x4x4, by its cores v5p-128"
    )
    where.add_argument("--device", metavar="GPUS", help="estimate for 80GB, or a host of 8x80GB")
    plan.add_argument(
        "--search",
        metavar="N",
        type=int,
        nargs="?",
        const=3,
        help="rank all meshes and rows; the best N of a slice, 3 if not given, are compiled",
    )
    plan.add_argument(
        "--stage",
        choices=TRAINING,
        help="what CONFIG configures; by default the first word of its name",
    )
    plan.add_argument("--json", action="store_true", default=False, help="one object on one line")
    overrides(plan)

    report = command(
        commands, "report", _report, "write report.html again from a run's report.json"
    )
    report.add_argument("run", metavar="RUN", help="folder of a run")

    command(commands, "configs", _configs, "list the configurations that come with the package")
    return parser


def _quickstart(arguments: Namespace) -> None:
    seed = [f"seed={arguments.seed}"] if "seed" in arguments else []
    # each seed has a folder of its own, unless the command line names one
    folder = [f"run=runs/quickstart-seed{arguments.seed}"] if getattr(arguments, "seed", 0) else []
    _run("pipeline", "quickstart", [*folder, *seed, *arguments.overrides])


def _stage(arguments: Namespace) -> None:
    _run(arguments.stage, arguments.config, arguments.overrides)


def _run(stage: str, config: str, overrides: Sequence[str]) -> None:
    from glm_jax import processes
    from glm_jax.configuration import load
    from glm_jax.train import progress

    settings = load(_configuration(stage), config, overrides)
    processes.join()
    if processes.several() and stage not in TRAINING:
        raise InputError(f"{stage} runs in one process; {', '.join(TRAINING)} in several")
    progress.console.quiet = not processes.leads()
    file, _ = STAGES[stage][0].split(".")
    importlib.import_module(f"glm_jax.train.{file}").run(settings)


def _configuration(stage: str) -> type:
    file, name = STAGES[stage][0].split(".")
    return getattr(importlib.import_module(f"glm_jax.train.{file}"), name)


def _sample(arguments: Namespace) -> None:
    from glm_jax.configuration import parse
    from glm_jax.train import sample

    values = given(arguments)
    values["sampling"] = {name: values.pop(name) for name in SAMPLING & values.keys()}
    sample.run(parse(sample.SampleConfig, values, "the command line"))


def _plan(arguments: Namespace) -> int:
    # the compiler for TPUs is asked for nothing but plans: the host's own devices stay out of it
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from glm_jax.configuration import load
    from glm_jax.train import plan

    # the shipped ones are named by their stage: ppo-chatglm3-6b-v5e-64
    stage = getattr(arguments, "stage", os.path.basename(arguments.config).partition("-")[0])
    if stage not in TRAINING:
        raise InputError(
            f"{arguments.config}: say what it configures: --stage {'|'.join(TRAINING)}"
        )
    config = load(_configuration(stage), arguments.config, arguments.overrides)
    searched, device = "search" in arguments, getattr(arguments, "device", None)
    if searched and arguments.search < 1:
        raise InputError(f"--search {arguments.search}: compile at least 1 of the candidates")
    if searched and device:
        found = plan.search_device(config, device)
    elif searched:
        found = plan.search(config, arguments.topology, arguments.search)
    elif device:
        found = plan.plan_device(config, device)
    else:
        found = plan.plan(config, arguments.topology)
    tell = plan.told_search if searched else plan.told
    print(json.dumps(found) if arguments.json else tell(found))
    return 0 if found["fits"] else 1


def _report(arguments: Namespace) -> None:
    from glm_jax.train.reports import pipeline_report

    print(f"wrote {pipeline_report.write(arguments.run)}")


def _configs(arguments: Namespace) -> None:
    from glm_jax.configuration import shipped

    for name, text in shipped().items():
        print(f"{name:28}{text}")
