"""Mechanisms: the only gate from a private sum to something public."""
