"""Files that two of our processes map: a block of memory with a name.

Plain files (in /dev/shm where there is one), not `multiprocessing.shared_memory`: its resource tracker would unlink the
block when either process ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path


def make_mapped_file(prefix: str, size: int) -> Path:
    """Make a file of `size` bytes, all zero, that only this user may read; whoever made it unlinks it."""
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    handle, name = tempfile.mkstemp(prefix=prefix, dir=folder)
    try:
        os.ftruncate(handle, size)
    finally:
        os.close(handle)
    return Path(name)


def map_file(path: str | os.PathLike[str], readonly: bool = False) -> mmap.mmap:
    """Map a whole file for reading and writing; the name may be unlinked afterwards. OSError, ValueError if empty."""
    handle = os.open(path, os.O_RDONLY if readonly else os.O_RDWR)
    try:
        return mmap.mmap(handle, 0, access=mmap.ACCESS_READ if readonly else mmap.ACCESS_DEFAULT)
    finally:
        os.close(handle)
