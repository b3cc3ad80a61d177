"""How the process handles memory that tensors free."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of `mallopt` (glibc's malloc.h)
KEPT = 2**31 - 1  # bytes of freed memory that may stay with the process: what an int can say


@cache
def keep_freed_memory() -> None:
    """Where the C library is glibc, it gives a large buffer back to the system as soon as that is freed, and the next
    one costs a fault for each page of 4 KiB: 40 % of the time of bounds of images in double precision. Here what is
    freed is kept and used again. (Elsewhere nothing changes.)"""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, KEPT)
