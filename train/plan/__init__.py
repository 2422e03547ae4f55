"""Plans: whether a run fits a TPU slice or GPUs, found out on a laptop."""

from glm_jax.train.plan.plan import plan as plan
from glm_jax.train.plan.plan import plan_device as plan_device
from glm_jax.train.plan.search import search as search
from glm_jax.train.plan.search import search_device as search_device
from glm_jax.train.plan.told import told as told
from glm_jax.train.plan.told import told_search as told_search
