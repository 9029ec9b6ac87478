"""The folder of the local disk that long lists are set aside in: what is said where it is full."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from batch_pipeline.errors import ScratchFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@contextmanager
def full_disk_named() -> Iterator[None]:
    """Raises ScratchFull where there is no room for what is set aside. (Storage and the cache name their own.)"""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            folder, why = tempfile.gettempdir(), error.strerror or str(error)
        elif isinstance(error, FileNotFoundError) and tempfile.tempdir is None:
            folder, why = "for temporary files", str(error)  # there is none that takes a byte
        else:
            raise
        raise ScratchFull(
            f"the scratch folder {folder} can't be written to ({why}): long lists are set aside there, about 300 bytes "
            "an input. Make room, or set TMPDIR to a folder of a larger disk, and run the service again"
        ) from error
