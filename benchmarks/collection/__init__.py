"""Collecting preferences: under load over HTTP, and the database alone."""
