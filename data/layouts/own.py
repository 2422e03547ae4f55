"""Our own layout: what `records.write` writes of a pair, and `lang` for `language`."""

import json
from typing import Any

from glm_jax.data import records
from glm_jax.data.layouts.layout import Layout, Row
from glm_jax.data.records import Pair


def recognises(row: Row) -> bool:
    return (
        isinstance(row.get("prompt"), list)
        and isinstance(row.get("chosen"), str)
        and isinstance(row.get("rejected"), str)
    )


def pairs(row: Row) -> list[Pair]:
    if isinstance(row.get("task"), str):  # as Parquet and tensorflow-datasets hold it
        row = {**row, "task": json.loads(row["task"])}
    return [records.parse(row, Pair)]


def row(pair: Pair) -> dict[str, Any]:
    return records.to_dict(pair)


LAYOUT = Layout("glm-rlhf", recognises, pairs, row)
