"""Attacks on models and on privacy, to be run against one's own jobs."""
