"""The errors that are said in one line, without a traceback."""


class InputError(ValueError):
    """Bad input: a file, a field, a key, a setting.

    The message says what is wrong, where, and what would be right; the command line prints it as
    one line and exits with status 2.
    """


class RunStopped(RuntimeError):
    """A run that ended before its time, its checkpoint saved: the message says why."""
