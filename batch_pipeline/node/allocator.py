"""Keeps memory that a node frees and at once needs again."""

from __future__ import annotations

import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Numbers of mallopt's parameters, from glibc's malloc.h."""
_KEPT = 128 * 2**20
_LARGE = 32 * 2**20
"""What is larger is given back at once. glibc takes no more for this."""
_ARENAS = 2
"""Heaps that the threads share. Each keeps its own."""


def keep_freed_memory() -> None:
    """Blocks of a file and all that is made of them are as large from one to the next.

    glibc by itself gives such memory back to the system, which then clears each page anew: a tenth to a quarter of
    the time of reading numbers. Heaps that are there already stay, so that it is best said before there are threads.
    Nothing changes where the libc is another, or the user's environment says how it is to be.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    import ctypes

    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        for parameter, value in ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, _ARENAS)):
            libc.mallopt(parameter, value)
