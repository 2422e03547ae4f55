"""A word-level world with a hidden true utility, so that what training did can be judged."""
