"""Plans: whether a run fits a TPU slice, found out on a laptop."""

from glm_jax.train.plan.plan import plan as plan
from glm_jax.train.plan.told import told as told
