"""Collecting human preferences: a web application, its database, and what is made of the labels."""
