"""The algorithms: supervised fine-tuning, reward models, PPO, DPO, and their command line."""
