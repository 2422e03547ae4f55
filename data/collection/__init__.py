"""Collecting human preferences: a web application, its database, and what is made of the labels."""

from glm_jax.errors import InputError


class Refused(InputError):
    """What a person may not do, said to that person in one line; nothing was changed."""
