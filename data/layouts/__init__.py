"""The layouts that preference files have: how a row is known, read as pairs, and written.

Each recognises its rows by the names and types of their fields; at most one recognises a row.
"""

from collections.abc import Mapping
from typing import Any

from glm_jax.data.layouts import argilla, hh, labelstudio, llamafactory, own, ranked, trl
from glm_jax.data.layouts.layout import Layout

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        own.LAYOUT,
        *trl.LAYOUTS,
        hh.LAYOUT,
        *llamafactory.LAYOUTS,
        *ranked.LAYOUTS,
        argilla.LAYOUT,
        labelstudio.LAYOUT,
    )
}


def recognised(row: Mapping[str, Any]) -> str | None:
    """The name of the layout that the row has; None if it is none of them."""
    return next((name for name, layout in LAYOUTS.items() if layout.recognises(row)), None)
