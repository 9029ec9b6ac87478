"""Which versions of which objects were taken: a sorted array of digests, and listings compared with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import compress, islice
from typing import TYPE_CHECKING, Any

from batch_pipeline.locations import Location
from batch_pipeline.storage import ObjectInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIGEST_BYTES = 16
_BLOCK = 1000


def digest(location: Location, etag: str) -> bytes:
    """16 bytes that stand for one version of one object."""
    text = f"{location.uri}\n{etag}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:DIGEST_BYTES]


class Taken:
    """An immutable set of digests: 16 bytes each in memory and in storage, a million of them in a second."""

    def __init__(self, packed: bytes = b"") -> None:
        """`packed`: the digests one after the other, sorted, none twice."""
        self.packed = packed

    @classmethod
    def read(cls, packed: bytes) -> Taken:
        """A set that was kept. Raises ValueError for what is none."""
        import numpy as np

        if len(packed) % DIGEST_BYTES:
            raise ValueError(f"{len(packed)} bytes are no digests of {DIGEST_BYTES} bytes each")
        taken = cls(packed)
        if not np.all(taken._array[:-1] < taken._array[1:]):
            raise ValueError("its digests are not sorted")
        return taken

    def __len__(self) -> int:
        return len(self.packed) // DIGEST_BYTES

    def __contains__(self, wanted: bytes) -> bool:
        return bool(self.holds([wanted])[0])

    def holds(self, wanted: list[bytes]) -> NDArray[np.bool_]:
        """For each digest whether it is in the set."""
        import numpy as np

        ours = self._array
        if not len(ours):
            return np.zeros(len(wanted), dtype=bool)
        asked = np.array(wanted, dtype=ours.dtype)
        where = np.minimum(np.searchsorted(ours, asked), len(ours) - 1)
        return np.asarray(ours[where] == asked)

    def union(self, more: Iterable[bytes]) -> Taken:
        added = b"".join(more)
        return self.merged(Taken(added)) if added else self

    def merged(self, other: Taken) -> Taken:
        import numpy as np

        return Taken(np.union1d(self._array, other._array).tobytes())

    def at(self, kept: NDArray[np.bool_]) -> Taken:
        """Those that a mask, in sorted order, says."""
        return Taken(self._array[kept].tobytes())

    def positions(self, wanted: list[bytes]) -> NDArray[np.intp]:
        """Where in sorted order each digest is; every one must be in the set."""
        import numpy as np

        return np.searchsorted(self._array, np.array(wanted, dtype=self._array.dtype))

    @property
    def _array(self) -> NDArray[Any]:
        # Fixed-width bytes compare as bytes do: what numpy pads with, a zero byte, all of them are as wide without.
        import numpy as np

        return np.frombuffer(self.packed, dtype=f"S{DIGEST_BYTES}")


class Comparison:
    """One listing compared with what was taken, as it streams by. `objects`: how many there were so far."""

    def __init__(self, taken: Taken) -> None:
        import numpy as np

        self.objects = 0
        self._taken = taken
        self._listed = np.zeros(len(taken), dtype=bool)

    def fresh(self, listing: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        """The objects that were not taken in the version that is listed."""
        stream = iter(listing)
        while block := list(islice(stream, _BLOCK)):
            self.objects += len(block)
            digests = [digest(info.location, info.etag) for info in block]
            known = self._taken.holds(digests)
            self._listed[self._taken.positions(list(compress(digests, known)))] = True
            yield from compress(block, ~known)

    @property
    def still_there(self) -> Taken:
        """What was taken and is listed still; to be asked for after the whole listing went by."""
        return self._taken if self._listed.all() else self._taken.at(self._listed)
