"""Collecting human preferences: a web application, its database, and what is made of the labels."""

from glm_jax.errors import InputError


class Refused(InputError):
    """What a person may not do, said to that person in one line; nothing was changed.

    The message is a constant, with the names of `values` in braces: pages know it in other
    languages.
    """

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message.format(**values))
        self.message, self.values = message, values
