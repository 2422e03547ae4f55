"""Annotations are checked while testing, in all three packages."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from glm_jax import layers
from glm_jax.data import splits
from glm_jax.train import losses


def test_a_wrong_shape_is_refused():
    with pytest.raises(TypeCheckError):
        losses.ranking_loss(jnp.zeros(3), jnp.zeros(4), 0.0)
    with pytest.raises(TypeCheckError):
        losses.ranking_loss(jnp.zeros(3, int), jnp.zeros(3, int), 0.0)


def test_a_wrong_type_is_refused():
    with pytest.raises(TypeCheckError):
        splits.hold_out([], "a tenth", 0)
    assert layers.__loader__.__class__ is losses.__loader__.__class__


def test_promotion_is_strict():
    with pytest.raises(Exception, match="promotion"):
        jnp.zeros(3) + np.zeros(3, np.int32)
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.zeros((2, 3)) + jnp.zeros(3)
