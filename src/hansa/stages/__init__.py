"""Stages: two-sided transforms of updates, a client half and a server half each."""
