"""Images that say they are enormous: refused by their headers, before any of it is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from batch_pipeline.errors import InputFailed
from batch_pipeline.models.preprocessing import MOST_PIXELS, ImagePreprocessing, Size
from batch_pipeline.node.images import file_tensor
from batch_pipeline_tests.faults.memory import run_measured
from batch_pipeline_tests.node.test_images import image_input

SIDE = 50_000


def small(kind: str) -> bytearray:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, kind)
    return bytearray(file.getvalue())


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png(width: int = SIDE, height: int = SIDE, *more: bytes) -> bytes:
    """With a first megabyte or two of it in the file, as zeros, of which a thousand take a byte."""
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(2 << 20), 9))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + chunk(b"IEND", b"")


def jpeg() -> bytes:
    data = small("JPEG")
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def gif() -> bytes:
    data = small("GIF")
    data[6:10] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def gif_frame() -> bytes:
    """A small screen, and a first frame that is larger than it."""
    data = small("GIF")
    at = data.index(b"\x2c\0\0\0\0\x08\0\x08\0") + 5
    data[at : at + 4] = struct.pack("<HH", SIDE, SIDE)
    return bytes(data)


def bmp() -> bytes:
    data = small("BMP")
    data[18:26] = struct.pack("<ll", SIDE, SIDE)
    return bytes(data)


def tiff() -> bytes:
    data = small("TIFF")
    for tag in (256, 257):
        found = [at for at in range(8, len(data) - 12, 2) if data[at : at + 2] == struct.pack("<H", tag)]
        data[found[0] + 2 : found[0] + 12] = struct.pack("<HLL", 4, 1, SIDE)
    return bytes(data)


def webp() -> bytes:
    """The canvas of an extended file is as large as it says."""
    file = io.BytesIO()
    frame = Image.new("RGBA", (8, 8), "red")
    frame.save(file, "WEBP", save_all=True, append_images=[Image.new("RGBA", (8, 8), "blue")])
    data = bytearray(file.getvalue())
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (SIDE - 1).to_bytes(3, "little") * 2
    return bytes(data)


def ppm() -> bytes:
    return f"P6 {SIDE} {SIDE} 255\n".encode() + bytes(1000)


KINDS = [png, jpeg, gif, gif_frame, bmp, tiff, ppm]

DECODE = """
import sys
from pathlib import Path
from batch_pipeline.errors import InputFailed
from batch_pipeline.models.preprocessing import ImagePreprocessing
from batch_pipeline.node.images import file_tensor
from batch_pipeline_tests.node.test_images import image_input
try:
    file_tensor(Path(sys.argv[1]).read_bytes(), image_input(None, None), ImagePreprocessing())
except InputFailed as error:
    print(error.code, error.message)
"""


@pytest.mark.parametrize("make", KINDS)
def test_it_is_refused_by_its_size_and_memory_stays_low(tmp_path: Path, make: Callable[[], bytes]) -> None:
    (tmp_path / "large").write_bytes(make())
    said, peak = run_measured(DECODE, tmp_path / "large")
    assert said.startswith("too_large the image"), said
    assert "178,956,970 pixels" in said
    assert peak < 300


def test_a_canvas_of_webp_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """By libwebp itself, whose images have 16,383 pixels a side at most."""
    (tmp_path / "large").write_bytes(webp())
    said, peak = run_measured(DECODE, tmp_path / "large")
    assert said.split()[0] in ("too_large", "not_an_image")
    assert peak < 300


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_compressed_text_or_profile_is_not_unpacked_without_a_bound(tmp_path: Path, kind: bytes) -> None:
    bomb = chunk(kind, b"name\0\0" + zlib.compress(bytes(500 << 20), 9))
    (tmp_path / "bomb").write_bytes(png(8, 8, *[bomb] * 3))
    _, peak = run_measured(DECODE, tmp_path / "bomb")
    assert peak < 300


def test_a_strip_that_is_resized_to_a_gigantic_one_is_refused() -> None:
    steps = ImagePreprocessing(do_resize=True, size=Size(shortest_edge=224))
    with pytest.raises(InputFailed) as failed:
        file_tensor(png(1, 60_000), image_input(None, None), steps)
    assert failed.value.code == "too_large"
    assert "1 x 60000, resized to 224 x 13440000" in failed.value.message


@pytest.mark.parametrize("crop", [Size(16384, 16384), Size(shortest_edge=16384), Size(1, MOST_PIXELS + 1)])
def test_a_crop_that_is_far_larger_than_the_image_is_refused(crop: Size) -> None:
    steps = ImagePreprocessing(do_resize=False, do_center_crop=True, crop_size=crop)
    with pytest.raises(InputFailed) as failed:
        file_tensor(bytes(small("PNG")), image_input(None, None, element="uint8"), steps)
    assert failed.value.code == "too_large"
    assert "the image of 8 x 8, cropped to 1" in failed.value.message
    assert "has more than 178,956,970 pixels" in failed.value.message


def progressive(scans: int, side: int = 8, picture: bytes = b"") -> bytes:
    """A JPEG with so many scans more, each of all its pixels."""
    file = io.BytesIO()
    Image.new("L", (side, side), 90).save(file, "JPEG", progressive=True, comment=picture)
    data = file.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * scans + data[-2:]


def test_a_jpeg_that_goes_over_its_pixels_without_end_is_refused() -> None:
    """One of 10 MB would take an hour to decode."""
    with pytest.raises(InputFailed) as failed:
        file_tensor(progressive(100_000, 8000), image_input(None, None), ImagePreprocessing())
    assert failed.value.code == "too_large"
    assert "more than 500 scans" in failed.value.message


def test_a_jpeg_with_a_few_scans_is_decoded_whatever_else_is_in_it() -> None:
    """As another picture, for those who look through many, or the film that a telephone puts after it."""
    within = b"\xff\xda" * 1000
    for data in (progressive(20, picture=within), progressive(20) + within):
        assert file_tensor(data, image_input(None, None), ImagePreprocessing()).shape == (1, 3, 8, 8)


@pytest.mark.parametrize("kind", ["PCX", "SGI", "EPS"])
def test_a_kind_that_is_not_listed_is_no_image(kind: str) -> None:
    """That of EPS would start another program."""
    with pytest.raises(InputFailed) as failed:
        file_tensor(bytes(small(kind)), image_input(None, None), ImagePreprocessing())
    assert failed.value.code == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_every_kind_that_is_listed_is_one(kind: str) -> None:
    tensor = file_tensor(bytes(small(kind)), image_input(None, None), ImagePreprocessing(do_resize=False))
    assert tensor.shape == (1, 3, 8, 8)
