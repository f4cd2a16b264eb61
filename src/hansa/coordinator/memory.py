"""Tells the C library to give memory back: what a round needs must not stay after the round.

By default glibc keeps an arena for each thread and raises the size from which it maps memory
directly, so that buffers of one round lie scattered between small objects and are never returned.
Elsewhere nothing is done; only the size of the process differs.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def bound_memory() -> None:
    """One arena, vectors mapped directly and returned when they are freed. Call it once, early."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # not glibc
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, 512 << 10)
    mallopt(_M_TRIM_THRESHOLD, 4 << 20)
