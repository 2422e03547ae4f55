"""Annotators of the proving ground, who work at the pages of a running server."""
