"""Slices by name."""

import pytest

from glm_jax.errors import InputError
from glm_jax.train.plan.slices import parse


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("v5p-128", "v5p:4x4x4"), ("v5p-32", "v5p:2x2x4"), ("v5e-64", "v5e:8x8"),
        ("v6e-256", "v6e:16x16"), ("v5e-8", "v5e:2x4"), ("v5p:4x4x8", "v5p:4x4x8"),
        ("v5p-8", "v5p:1x2x2"),
    ],
)  # fmt: skip
def test_cores_and_shapes(name, same):
    assert parse(name).name == same


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("v5x-64", "v5e, v5p, v6e"), ("v5p:4x4", "3 axes"), ("v5e:4x4x4", "2 axes"),
        ("v5p-3", "2 cores a chip"), ("v5p-96", "power of 2"), ("64", "write a kind"),
    ],
)  # fmt: skip
def test_names_that_are_none(name, told):
    with pytest.raises(InputError, match=told):
        parse(name)
