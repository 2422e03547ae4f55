"""Which settings lower what a run takes, by how much: tried one by one on the estimate."""

from dataclasses import replace
from typing import Any

from glm_jax.errors import InputError
from glm_jax.mesh import check, check_rows
from glm_jax.train.plan.estimate import estimate
from glm_jax.train.plan.program import Config, Program, program
from glm_jax.train.plan.sizes import sizes
from glm_jax.train.ppo.config import PPOConfig
from glm_jax.train.reward import RewardConfig

Values = dict[str, Any]  # by the path of a key


def would_help(config: Config, planned: Program) -> list[dict[str, Any]]:
    """Settings that lower the peak, the one that saves most first: `set`, as the command line takes
    it, `saves_bytes`, the `hbm_used_bytes` that are left, and on how many `chips`."""
    now, found = estimate(config, sizes(config, planned)), []
    for values in levers(config):
        try:
            other = changed(config, values)
            made = program(other)
            check(other.mesh, made.models, other.mesh.devices)
            check_rows(other.mesh, made.rows)
        except InputError:  # a setting that this run cannot have
            continue
        used = estimate(other, sizes(other, made)).used
        if used < now.used:
            found.append(
                {
                    "set": written(values), "saves_bytes": now.used - used,
                    "hbm_used_bytes": used, "chips": other.mesh.devices,
                }
            )  # fmt: skip
    return sorted(found, key=lambda lever: -lever["saves_bytes"])


def levers(config: Config) -> list[Values]:
    """What may be tried on this stage: each setting one step further than it is."""
    if isinstance(config, PPOConfig):
        ppo, of = config.ppo, "ppo"
        whole = {
            "update_rows": ppo.rows // ppo.minibatches, "scoring_rows": ppo.rows,
            "rollout_rows": ppo.rows, "log_prob_chunk": ppo.sampling.max_new_tokens,
        }  # fmt: skip
        fused = {"ppo.layerwise": True, "ppo.update_rows": None, "ppo.widths": 1}
        fused |= {"ppo.actor.max_grad_norm": None, "ppo.critic.max_grad_norm": None}
        part = ppo
    else:
        part, of = config.memory, "memory"
        whole = {"rows": config.batch_size}
        if not isinstance(config, RewardConfig):
            whole["log_prob_chunk"] = config.max_length
        fused = {"memory.layerwise": True, "memory.rows": None, "optimizer.max_grad_norm": None}
    found = [
        {f"{of}.{name}": (getattr(part, name) or size) // 2}
        for name, size in whole.items()
        if (getattr(part, name) or size) > 1
    ]
    found += [{f"{of}.remat": remat} for remat in ("products", "full") if part.remat == "none"]
    found += [{f"{of}.remat": "full"}] if part.remat == "products" else []
    found += [] if part.layerwise else [fused]
    found += [] if part.compute_dtype == "bfloat16" else [{f"{of}.compute": "bfloat16"}]
    return [*found, {"mesh.fsdp": 2 * config.mesh.fsdp}]  # on twice the devices


def changed(config: Any, values: Values) -> Any:
    """The configuration with other values. Raises InputError when they do not go together."""
    own = {path: value for path, value in values.items() if "." not in path}
    inner: dict[str, Values] = {}
    for path in values.keys() - own.keys():
        name, _, rest = path.partition(".")
        inner.setdefault(name, {})[rest] = values[path]
    parts = {name: changed(getattr(config, name), some) for name, some in inner.items()}
    return replace(config, **own, **parts)


def written(values: Values) -> str:
    """As overrides of a configuration: `ppo.update_rows=8 ppo.remat=full`."""

    def plain(value: Any) -> str:
        return "null" if value is None else str(value).lower()

    return " ".join(f"{path}={plain(value)}" for path, value in values.items())
