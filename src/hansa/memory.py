"""Tells the C library what to do with memory that was freed; does nothing where it is not glibc.

A coordinator gives it back: what transfers needed must not stay beside what comes next. By default
glibc keeps an arena for each thread, and buffers of one round lie scattered between small objects.

A site keeps it: it needs the same few vectors in every round, and getting them from the operating
system anew costs as much as a pass over them.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # these numbers are from malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def give_memory_back() -> None:
    """One arena; vectors are mapped directly and unmapped when they are freed. Call it early."""
    _set({_M_ARENA_MAX: 1, _M_MMAP_THRESHOLD: 4 << 20, _M_TRIM_THRESHOLD: 4 << 20})


def keep_memory() -> None:
    """One arena; vectors up to 32 MiB come from memory that was used before. Call it early."""
    _set({_M_ARENA_MAX: 1, _M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 256 << 20})


def _set(options: dict[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in options.items():
        mallopt(option, value)


def trim() -> None:
    """Gives back what lies free between objects; a millisecond for some tens of megabytes."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
