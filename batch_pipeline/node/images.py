"""A file to the tensor of a file API: its bytes as they are, or its image with the package's preprocessing."""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from batch_pipeline.errors import InputFailed
from batch_pipeline.models.binding import FileInput
from batch_pipeline.models.preprocessing import MOST_PIXELS, ImagePreprocessing, Size
from batch_pipeline.node.budget import ByteBudget

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

    Array = np.ndarray[Any, np.dtype[Any]]

_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error),
    *(IndexError, KeyError, TypeError),
)
"""What Pillow's decoders raise for files that are no images, or no longer whole."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow reads many more. They are rarely images of anything, and their decoders are less looked after: that of EPS
starts another program."""
_NO_IMAGE = (
    "the file is no image that can be decoded (JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000, AVIF), or is cut short"
)
MOST_SCANS = 500
"""Of a progressive JPEG, which has some ten. Each goes over all pixels, and a hundred bytes are enough for one."""
_MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")
"""Of a JPEG; not those that stand within a scan."""
_SCAN, _END = 0xDA, 0xD9
_MARKER_OF_SCAN = b"\xff\xda"
_PIXELS = ByteBudget(MOST_PIXELS // 4)
"""So many are held decoded at once, or one image: large ones take turns."""


def file_tensor(
    data: bytes,
    source: FileInput,
    steps: ImagePreprocessing,
    watched: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Array:
    """One file as a batch of one row (for a 1-D uint8 input: the bytes, which have no batch dimension).

    `watched` is entered for as long as an image is decoded and resized, and not while it waits for its turn.

    Raises InputFailed: `not_an_image`, or `wrong_shape` where the image does not come out as the model takes it.
    """
    import numpy as np

    if source.form == "image":
        return _laid_out(_pixels(data, source, steps, watched), source, steps)[None]
    if source.tensor.element == "string":
        # As a void: of a Python bytes ONNX Runtime takes the repr, and of numpy's S what stands before a NUL.
        shape = (1,) * max(1, len(source.tensor.shape))
        return np.array([data], dtype=f"V{len(data)}").reshape(shape)
    return np.frombuffer(data, dtype=np.uint8)


def _pixels(
    data: bytes, source: FileInput, steps: ImagePreprocessing, watched: Callable[[], AbstractContextManager[object]]
) -> Array:
    """The image, resized and cropped, as [height, width, channels] of uint8."""
    import numpy as np

    opened = _opened(data)
    own = Size(source.height, source.width)
    size, crop_size = steps.size or own, steps.crop_size or own
    sizes = [(opened.width, opened.height)]
    sizes += [_resized_size(*sizes[-1], size)] if steps.do_resize else []
    sizes += [_cropped_size(*sizes[-1], crop_size)] if steps.do_center_crop else []
    with _PIXELS.holding(max(width * height for width, height in sizes)), watched():
        image = _decoded(opened, source, steps)
        if steps.do_resize:
            image = _resized(image, size, steps.resample)
        pixels: Array = np.asarray(image)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        return _center_crop(pixels, crop_size) if steps.do_center_crop else pixels


def _opened(data: bytes) -> Picture:
    """The image of which the header alone was read: one that is too large is refused by that."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError:
        raise _too_large("the image") from None
    except _BROKEN as error:
        raise InputFailed("not_an_image", _NO_IMAGE) from error
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(f"the image of {image.width} x {image.height}")
    if image.info.get("progressive") and data.count(_MARKER_OF_SCAN) > MOST_SCANS and _scans(data) > MOST_SCANS:
        raise InputFailed("too_large", f"the image has more than {MOST_SCANS} scans, which is the most that is decoded")
    return image


def _scans(data: bytes) -> int:
    """How many scans the JPEG at the beginning of the data has: what looks like one in another part is none."""
    scans, at = 0, 2
    while (found := _MARKER.search(data, at)) is not None and data[found.end() - 1] != _END:
        scans += data[found.end() - 1] == _SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return scans


def _too_large(what: str) -> InputFailed:
    return InputFailed("too_large", f"{what} has more than {MOST_PIXELS:,} pixels, which is the most that is decoded")


@lru_cache
def _formats() -> tuple[str, ...]:
    """Those that this build of Pillow reads."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decoded(opened: Picture, source: FileInput, steps: ImagePreprocessing) -> Picture:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)
            mode = _mode(opened, source, steps)
            return opened if opened.mode == mode else opened.convert(mode)  # which would copy it all the same
    except Image.DecompressionBombError:
        raise _too_large("the image") from None
    except MemoryError:
        raise InputFailed("too_large", f"no memory for an image of {opened.width} x {opened.height}") from None
    except _BROKEN as error:
        raise InputFailed("not_an_image", _NO_IMAGE) from error


def _mode(image: Picture, source: FileInput, steps: ImagePreprocessing) -> str:
    if source.channels == 1:
        return "L"
    if source.channels == 4:
        return "RGBA"
    return image.mode if image.mode in ("RGB", "L") and not steps.do_convert_rgb else "RGB"


def _resized(image: Picture, size: Size, resample: int) -> Picture:
    from PIL import Image

    width, height = _resized_size(image.width, image.height, size)
    if (width, height) == image.size:
        return image
    if width * height > MOST_PIXELS:
        # A strip of one pixel's width becomes as long as it was, times the width that it is given.
        raise _too_large(f"the image of {image.width} x {image.height}, resized to {width} x {height},")
    return image.resize((width, height), resample=Image.Resampling(resample))


def _resized_size(width: int, height: int, size: Size) -> tuple[int, int]:
    """(width, height) of an image that is resized."""
    if size.height and size.width:
        return size.width, size.height
    if size.shortest_edge:
        return _by_shortest_edge(width, height, size.shortest_edge, size.longest_edge)
    return width, height


def _by_shortest_edge(width: int, height: int, shortest: int, longest: int | None) -> tuple[int, int]:
    """(width, height) whose shorter edge is `shortest`; where that makes the other longer than `longest`, less."""
    short, long = min(width, height), max(width, height)
    new_short, new_long = shortest, int(shortest * long / short)
    if longest is not None and new_long > longest:
        new_short, new_long = int(longest * new_short / new_long), longest
    return (new_short, new_long) if width <= height else (new_long, new_short)


def _center_crop(pixels: Array, size: Size) -> Array:
    """The middle of an image; where the image is smaller, with zeros around it."""
    import numpy as np

    height, width, channels = pixels.shape
    crop_width, crop_height = _cropped_size(width, height, size)
    if crop_height * crop_width > MOST_PIXELS:
        raise _too_large(f"the image of {width} x {height}, cropped to {crop_width} x {crop_height},")
    (rows, to_rows), (columns, to_columns) = _middle(height, crop_height), _middle(width, crop_width)
    if crop_height <= height and crop_width <= width:
        return pixels[rows, columns]
    cropped: Array = np.zeros((crop_height, crop_width, channels), dtype=pixels.dtype)
    cropped[to_rows, to_columns] = pixels[rows, columns]
    return cropped


def _cropped_size(width: int, height: int, size: Size) -> tuple[int, int]:
    """(width, height) of an image that is cropped."""
    crop_height, crop_width = size.height or size.shortest_edge, size.width or size.shortest_edge
    return (crop_width, crop_height) if crop_height and crop_width else (width, height)


def _middle(there: int, wanted: int) -> tuple[slice, slice]:
    """Which of the lines there are taken, and where among the wanted ones they come to stand."""
    if wanted <= there:
        start = (there - wanted) // 2
        return slice(start, start + wanted), slice(0, wanted)
    before = math.ceil((wanted - there) / 2)
    return slice(0, there), slice(before, before + there)


def _laid_out(pixels: Array, source: FileInput, steps: ImagePreprocessing) -> Array:
    """The image in the model's layout and type. Raises InputFailed where the model's input has another fixed size."""
    import numpy as np

    height, width, channels = pixels.shape
    shape = (channels, height, width) if source.layout == "NCHW" else (height, width, channels)
    wanted = source.tensor.shape[1:]
    fits = len(wanted) == len(shape) and all(size in (None, there) for size, there in zip(wanted, shape, strict=True))
    if not fits:
        sizes = ["any" if size is None else size for size in wanted]
        raise InputFailed(
            "wrong_shape",
            f"the preprocessed image has shape {list(shape)}, the model's input {source.tensor.name!r} {sizes}",
        )
    table = _values(steps, channels, source.tensor.element)
    tensor = np.empty(shape, dtype=table.dtype)
    for channel in range(channels):
        plane = tensor[channel] if source.layout == "NCHW" else tensor[:, :, channel]
        np.take(table[channel], pixels[:, :, channel], out=plane, mode="clip")  # of uint8 nothing is to be clipped
    return tensor


@lru_cache
def _values(steps: ImagePreprocessing, channels: int, element: str) -> Array:
    """What becomes of each of the 256 values of a pixel, by channel: [channels, 256] in the input's element type."""
    import numpy as np

    values: Array = np.tile(np.arange(256, dtype=np.uint8), (channels, 1))
    if not element.startswith("float"):
        return values.astype(element)
    if steps.do_rescale:
        values = (values.astype(np.float64) * steps.rescale_factor).astype(np.float32)
    if steps.do_normalize:
        mean, std = (np.array(_one_each(given, channels), np.float32) for given in (steps.image_mean, steps.image_std))
        values = (values.astype(np.float32, copy=False) - mean[:, None]) / std[:, None]
    return values.astype(element, copy=False)


def _one_each(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) in (1, channels):
        return values * (channels // len(values))
    if len(set(values)) == 1 or channels == 1:
        return values[:1] * channels
    raise InputFailed("wrong_shape", f"the image has {channels} channels, the package's mean or std {len(values)}")
