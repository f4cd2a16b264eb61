"""How contract suites use Hypothesis: the same examples each time, shared by many classes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

LAW = settings(
    derandomize=True,
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    database=None,
)
