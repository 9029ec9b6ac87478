"""The inputs, the same in every run: rows of CSV that are all 240 bytes long, images, manifests."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator

import numpy as np

COLUMNS = 30
BLOCK = 10_000
"""So many different rows there are; longer files repeat them."""
IMAGES = 64
"""So many different images."""
CLASSES = tuple(f"class{number:02}" for number in range(20))
"""The values of text columns, as long as a number."""
TEXTS = 5
"""The last columns of `strings` and `mixed` are texts."""
FILES = 8
NOISE = 11
"""How much of it makes a JPEG of about 100 kB."""


def numbers() -> list[str]:
    """Rows of `COLUMNS` numbers with five decimals."""
    return [",".join(fields) for fields in _number_fields()]


def strings() -> list[str]:
    """The same rows, but texts in the last columns."""
    return [",".join(row[:-TEXTS] + text) for row, text in zip(_number_fields(), _texts(), strict=True)]


def mixed() -> list[str]:
    """Integers, truths, numbers and texts; in one row of a hundred a number is none, or fields are missing."""
    rows = []
    for number, (row, text) in enumerate(zip(_number_fields(), _texts(), strict=True)):
        left, middle = row[:TEXTS], row[TEXTS : 2 * TEXTS]
        truths = ["true" if field < "0.5" else "false" for field in middle]
        # As many digits more as the truth has letters less: all rows stay of one length.
        lengths = [14 - len(truth) for truth in truths]
        integers = [field.replace("0.", "12").ljust(length, "0") for field, length in zip(left, lengths, strict=True)]
        fields = integers + truths + row[2 * TEXTS : -TEXTS] + text
        if number % 200 == 50:
            fields[12] = "unknown"
        line = ",".join(fields)
        rows.append("-".join(line.rsplit(",", 4)) if number % 200 == 150 else line)
    return rows


def csv(rows: int, block: Callable[[], list[str]] = numbers) -> Iterator[bytes]:
    """A file of so many rows, in pieces."""
    lines = [f"{line}\n".encode() for line in block()]
    whole = b"".join(lines)
    for _ in range(rows // BLOCK):
        yield whole
    yield b"".join(lines[: rows % BLOCK])


def csv_files(rows: int, block: Callable[[], list[str]] = numbers) -> Iterator[tuple[str, Iterator[bytes]]]:
    """So many rows in `FILES` files, each with its name."""
    for number in range(FILES):
        yield f"{number}.csv", csv(rows // FILES, block)


def one_row_files(count: int) -> Iterator[tuple[str, list[bytes]]]:
    rows = numbers()
    for number in range(count):
        yield f"{number:05}.csv", [f"{rows[number % BLOCK]}\n".encode()]


def image_files(count: int) -> Iterator[tuple[str, list[bytes]]]:
    """JPEG files of 640 × 480 and about 100 kB: smooth colours under a noise that the size comes from."""
    images = [_image(number) for number in range(min(count, IMAGES))]
    for number in range(count):
        yield f"{number:05}.jpg", [images[number % IMAGES]]


def manifest(lines: int) -> Iterator[bytes]:
    """Sources that nobody looks at: only the list is read."""
    for first in range(0, lines, BLOCK):
        numbered = range(first, min(first + BLOCK, lines))
        yield b"".join(
            json.dumps({"source": f"s3://other-bucket/folder-{number % 100:02}/{number:08}.csv"}).encode() + b"\n"
            for number in numbered
        )


def skewed_sizes(count: int, seed: int) -> list[int]:
    """Bytes of files as folders have them: most are small, a few are up to a hundred times larger."""
    drawn = np.random.default_rng(seed).lognormal(12, 1.5, count)
    return [int(size) for size in np.minimum(drawn, 100 * np.median(drawn))]


def _number_fields() -> list[list[str]]:
    block = np.random.default_rng(7).random((BLOCK, COLUMNS))
    return [[f"{min(value, 0.99999):.5f}" for value in row] for row in block]


def _texts() -> list[list[str]]:
    chosen = np.random.default_rng(8).integers(len(CLASSES), size=(BLOCK, TEXTS))
    return [[CLASSES[one] for one in row] for row in chosen]


def _image(seed: int) -> bytes:
    from PIL import Image

    generator = np.random.default_rng(seed)
    colours = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((640, 480), 3)
    pixels = np.asarray(colours, dtype=np.float32) + generator.normal(0, NOISE, (480, 640, 1))
    jpeg = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(jpeg, format="JPEG", quality=85)
    return jpeg.getvalue()
