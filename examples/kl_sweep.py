"""How far does the policy go, and what does it gain? A sweep of the KL coefficient.

glm-rlhf quickstart && python examples/kl_sweep.py runs/quickstart
"""

import sys

from glm_jax import Tokenizer, load_pretrained
from glm_jax.data.records import Prompt, read
from glm_jax.sampling import Sampling
from glm_jax.train import ppo


def main(run: str, iterations: int = 20) -> None:
    sft_model = load_pretrained(f"{run}/sft/model")
    reward_model = load_pretrained(f"{run}/reward/balanced/model")
    tokenizer = Tokenizer.load(f"{run}/sft/model")
    prompts = read(f"{run}/data/rl_prompts.jsonl", Prompt)
    for kl_coefficient in (0.0, 0.05, 0.2):
        config = ppo.PPOHyperparameters(
            kl_coefficient=kl_coefficient,
            iterations=iterations,
            supervised_coefficient=0.0,
            sampling=Sampling(max_new_tokens=36),
        )
        batch_at, _ = ppo.batches(config, tokenizer, prompts, max_prompt=16)
        state = ppo.init(config, actor=sft_model, reference=sft_model, reward=reward_model)
        for i in range(iterations):
            state, metrics, _ = ppo.step(state, batch_at(i))
        score, kl = metrics["objective/scores"], metrics["objective/kl"]
        print(f"coefficient {kl_coefficient:4.2f}: score {score:+.2f} at KL {kl:.2f} nats")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
