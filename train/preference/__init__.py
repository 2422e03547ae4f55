"""Preference data from file to file: the commands `glm-rlhf data`, and the pipeline's pairs."""
