"""What a compiled program sends between chips, from the compiler's own text.

The text says each loop's body once: how often it runs is read off the loop's condition, but for
the loops over tokens and over sets of prompts, whose ends are not known before.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from glm_jax.train.plan.flops import Rounds

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
COLLECTIVE = re.compile(
    r"= (?P<result>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|"
    r"collective-permute)(?:-start)?\("
)
CALLS = re.compile(
    r"(?:calls|true_computation|false_computation|called_computation)=%?([\w.\-]+)"
    r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)
# what the TPU compiler makes of a sum of which each chip keeps a part
SCATTERING = re.compile(r"all-reduce-scatter\S* = (?P<result>.*?) fusion\(")
DECODING = '/decode/while"'
SETS = re.compile(r'(?:generate|greedy)/while"')
Sent = dict[tuple[str, str, str, bool], float]


class Collective(NamedTuple):
    kind: str
    result: str  # shapes a chip
    decoding: bool
    times: int

    @property
    def bytes(self) -> int:
        """Of its results on a chip, over all times."""
        return self.times * size(self.result)


def collectives(text: str, rounds: Rounds) -> list[Collective]:
    """All that the program sends, the largest first; of a branch in it the one that sends most."""
    computations, entry = _computations(text)

    def walk(name: str, decoding: bool) -> Sent:
        found: Sent = {}
        for line in computations[name]:
            sent = COLLECTIVE.search(line) or SCATTERING.search(line)
            if sent:
                kind = sent.groupdict().get("kind") or "reduce-scatter"
                channel = re.search(r"channel_id=(\d+)", line)
                shapes = re.sub(r"\{[^}]*\}", "", sent["result"])
                _add(found, {(kind, shapes, channel[1] if channel else line, decoding): 1})
            elif " while(" in line:
                condition, body = (_called(line, part) for part in ("condition", "body"))
                inside, times = decoding or DECODING in line, _rounds(computations[condition])
                if DECODING in line or SETS.search(line):
                    times = rounds.tokens if DECODING in line else rounds.sets
                for part in (condition, body):
                    _add(found, walk(part, inside), times)
            else:
                parts = [walk(c, decoding) for c in _callees(line) if c in computations]
                if " conditional(" in line:
                    parts = [max(parts, key=_bytes)]
                for part in parts:
                    _add(found, part)
        return found

    sent = [Collective(k, shape, d, round(n)) for (k, shape, _, d), n in walk(entry, False).items()]
    return sorted(sent, key=lambda c: -c.bytes)


def _add(found: Sent, more: Sent, times: float = 1) -> None:
    for key, number in more.items():  # one that is sent in pieces is one
        found[key] = max(found.get(key, 0), times * number)


def _bytes(sent: Sent) -> float:
    return sum(number * size(shapes) for (_, shapes, _, _), number in sent.items())


def size(shapes: str) -> int:
    """Bytes of the arrays in a type as HLO writes it: `bf16[32,1,4096]`, or a tuple of such."""
    total = 0
    for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
        elements = BYTES.get(dtype, 0)
        for n in filter(None, dims.split(",")):
            elements *= int(n)
        total += elements
    return total


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    found: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(", line)
        if head and line.endswith("{"):
            name = head[2]
            entry = name if head[1] else entry
            found[name] = []
        elif name and line.startswith("  "):
            found[name].append(line.strip())
    return found, entry


def _called(line: str, part: str) -> str:
    return re.search(rf"{part}=%?([\w.\-]+)", line)[1]


def _callees(line: str) -> Iterator[str]:
    for one, several in CALLS.findall(line):
        yield from [one] if one else re.findall(r"[\w.\-]+", several)


def _rounds(condition: list[str]) -> int:
    """Times that a counting loop runs: the constant that its counter is held against."""
    constants = [re.search(r" = [su]32\[\]\S* constant\((\d+)\)", line) for line in condition]
    return max((int(found[1]) for found in constants if found), default=1)
