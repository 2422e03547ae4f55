"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: a file, a field, a key, a setting.

    The message says what is wrong, where, and what would be right; the command line prints it as
    one line and exits with status 2.
    """
