"""What a compiled program sends between chips, from the compiler's own text.

The text says each loop's body once: how often it runs is read off the loop's condition. A loop
without a known end is decoding's, which runs for as many tokens as an answer may have.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
COLLECTIVE = re.compile(
    r"= (?P<result>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|"
    r"collective-permute)(?:-start)?\("
)
CALLS = re.compile(
    r"(?:calls|true_computation|false_computation|called_computation)=%?([\w.\-]+)"
    r"|(?:branch_computations|called_computations)=\{([^}]*)\}"
)
DECODING = 'generate/decode/while"'


class Collective(NamedTuple):
    kind: str
    result: str  # shapes a chip
    decoding: bool
    times: int

    @property
    def bytes(self) -> int:
        """Of its results on a chip, over all times."""
        return self.times * size(self.result)


def collectives(text: str, tokens: int) -> list[Collective]:
    """All that the program sends, the largest first; `tokens`: of the longest answer."""
    computations, entry = _computations(text)
    found: Counter[tuple[str, str, str, bool]] = Counter()

    def walk(name: str, times: int, decoding: bool) -> None:
        for line in computations[name]:
            sent = COLLECTIVE.search(line)
            if sent:
                channel = re.search(r"channel_id=(\d+)", line)
                shapes = re.sub(r"\{[^}]*\}", "", sent["result"])
                key = sent["kind"], shapes, channel[1] if channel else line, decoding
                found[key] = max(found[key], times)  # one that is sent in pieces is one
            if " while(" in line:
                condition, body = (_called(line, part) for part in ("condition", "body"))
                inside = decoding or DECODING in line
                rounds = tokens if DECODING in line else _rounds(computations[condition])
                walk(condition, times * rounds, inside)
                walk(body, times * rounds, inside)
                continue
            for callee in _callees(line):
                if callee in computations:
                    walk(callee, times, decoding)

    walk(entry, 1, False)
    sent = [Collective(k, shape, d, n) for (k, shape, _, d), n in found.items()]
    return sorted(sent, key=lambda c: -c.bytes)


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
