"""The released models by name."""

from pathlib import Path

import pytest

from glm_jax import preset
from glm_jax.errors import InputError
from glm_jax.presets import PRESETS, parameters, table

DOCS = Path(__file__).parents[2] / "docs/models.md"


def test_sizes_are_those_of_the_files():
    """Published: 12,487,168,064 bytes of float16 with 64 for rotary frequencies."""
    assert parameters(PRESETS["chatglm3-6b"]) * 2 + 64 == 12_487_168_064
    assert round(parameters(PRESETS["glm-4-32b-0414"]) / 1e9, 1) == 32.6
    assert round(parameters(PRESETS["glm-4.5-air"]) / 1e9) == 107


def test_the_table_of_the_docs_is_that_of_the_code():
    assert table() in DOCS.read_text()


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(InputError, match=r"no model 'chatglm4'; there are chatglm2-6b, .*glm-4\.5"):
        preset("chatglm4")
