"""One YAML file a run; `glm-rlhf configs` lists them."""
