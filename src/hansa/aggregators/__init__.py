"""Aggregators: how many updates become one."""
