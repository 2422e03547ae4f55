"""People's preferences: the commands around the server of `data/collection`."""
