"""What preprocessor_config.json (the Hugging Face image processor's format) says of images. No pixels here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.json_files import read_file, read_json

_T = TypeVar("_T")
FILE_NAME = "preprocessor_config.json"
_SIZES = ({"height", "width"}, {"shortest_edge"}, {"shortest_edge", "longest_edge"})
_LONGEST_SIDE = 16384
MOST_PIXELS = 178_956_970
"""Of an image. From where on Pillow refuses one, too: 512 MiB of RGB."""
_LARGEST_NUMBER = 1e30
"""Of a factor, a mean or a std: what is larger, or no number at all, is no pixel's."""
_SQUARE_FROM = 384
"""With `crop_pct`, images of this size and more are resized to a square and not cropped."""


@dataclass(frozen=True)
class Size:
    """Pixels: both of `height` and `width`, or the length of the shortest (and at most the longest) edge."""

    height: int | None = None
    width: int | None = None
    shortest_edge: int | None = None
    longest_edge: int | None = None

    @property
    def pixels(self) -> int:
        """No image of this size has fewer."""
        if self.height and self.width:
            return self.height * self.width
        return self.shortest_edge**2 if self.shortest_edge and self.longest_edge is None else 0


@dataclass(frozen=True)
class ImagePreprocessing:
    """The steps from a decoded image to the tensor, in this order: convert, resize, crop, rescale, normalize."""

    do_resize: bool = True
    size: Size | None = None
    """None: the size of the ONNX input."""
    resample: int = 2
    """Pillow's number of the filter: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming."""
    do_center_crop: bool = False
    crop_size: Size | None = None
    """None: the size of the ONNX input."""
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """One number a channel, or one for all."""
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    do_convert_rgb: bool = True

    @staticmethod
    def plain() -> ImagePreprocessing:
        """For a package that says nothing: resized to the ONNX input, values in 0…1."""
        return ImagePreprocessing(do_normalize=False)

    @staticmethod
    def parse(config: Mapping[str, Any]) -> ImagePreprocessing:
        """The steps a configuration asks for; what it leaves out or gives as null has the format's default.

        Raises ModelRefused naming every key that cannot be used.
        """
        reader = _Reader(config)
        found = ImagePreprocessing(
            do_resize=reader.flag("do_resize", True),
            size=reader.size("size"),
            resample=reader.resample(),
            do_center_crop=reader.flag("do_center_crop", False),
            crop_size=reader.size("crop_size"),
            do_rescale=reader.flag("do_rescale", True),
            rescale_factor=reader.number("rescale_factor", 1 / 255),
            do_normalize=reader.flag("do_normalize", True),
            image_mean=reader.channels("image_mean"),
            image_std=reader.channels("image_std"),
            do_convert_rgb=reader.flag("do_convert_rgb", True),
        )
        crop_pct = reader.number("crop_pct", 1.0)
        edge = found.size.shortest_edge if found.size else None
        if edge and 0 < crop_pct <= 1 and edge / crop_pct > _LONGEST_SIDE:
            reader.problems.append(f"crop_pct: the image would have a side of more than {_LONGEST_SIDE} pixels")
        for key, asked, size in (
            ("size", found.do_resize, found.size),
            ("crop_size", found.do_center_crop, found.crop_size),
        ):
            if asked and size is not None and size.pixels > MOST_PIXELS:
                reader.problems.append(f"{key}: the image would have more than {MOST_PIXELS:,} pixels")
        if found.do_normalize and 0 in found.image_std:
            reader.problems.append("image_std: no number may be 0")
        if not 0 < crop_pct <= 1:
            reader.problems.append(f"crop_pct: a number above 0 and at most 1 is expected, not {crop_pct}")
        if reader.problems:
            raise ModelRefused("; ".join(f"{FILE_NAME}: {problem}" for problem in reader.problems))
        return found if config.get("crop_pct") is None else _with_crop_pct(found, crop_pct)


def load(folder: Path) -> ImagePreprocessing:
    """The preprocessing of a model package on the local disk; `plain` where it says nothing.

    Raises ModelRefused where the file cannot be used.
    """
    config = read(folder)
    return ImagePreprocessing.plain() if config is None else ImagePreprocessing.parse(config)


def read(folder: Path) -> dict[str, Any] | None:
    """preprocessor_config.json of a package as it stands, None where there is none. Raises ModelRefused."""
    file = folder / FILE_NAME
    if not file.is_file():
        return None
    config = read_json(read_file(file), FILE_NAME)
    if not isinstance(config, dict):
        raise ModelRefused(f"{FILE_NAME}: a JSON object is expected")
    return config


class _Reader:
    """Takes keys of a configuration one by one and remembers what was wrong."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self.problems: list[str] = []

    def flag(self, key: str, default: bool) -> bool:
        value = self._config.get(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        return self._wrong(key, "true or false is", default)

    def number(self, key: str, default: float) -> float:
        value = self._config.get(key)
        if value is None or _is_number(value):
            return default if value is None else float(value)
        return self._wrong(key, "a number is", default)

    def resample(self) -> int:
        value = self._config.get("resample")
        if value is None or (type(value) is int and 0 <= value <= 5):
            return 2 if value is None else value
        return self._wrong("resample", "a Pillow filter from 0 to 5 is", 2)

    def channels(self, key: str) -> tuple[float, ...]:
        value = self._config.get(key)
        if value is None:
            return (0.5, 0.5, 0.5)
        values = [value] if _is_number(value) else value
        if isinstance(values, list) and values and all(_is_number(one) for one in values):
            return tuple(float(one) for one in values)
        return self._wrong(key, "a list of numbers, one a channel, is", (0.5,))

    def size(self, key: str) -> Size | None:
        value = self._config.get(key)
        if value is None:
            return None
        if isinstance(value, list) and len(value) == 2:
            value = {"height": value[0], "width": value[1]}
        sides = {"height": value, "width": value} if type(value) is int else value
        sides = {side: length for side, length in sides.items() if length is not None} if _is_object(sides) else {}
        if set(sides) in _SIZES and all(type(side) is int and 0 < side <= _LONGEST_SIDE for side in sides.values()):
            return Size(**sides)
        return self._wrong(key, "a number of pixels, {height, width} or {shortest_edge}, of at most 16384, is", None)

    def _wrong(self, key: str, expected: str, default: _T) -> _T:
        self.problems.append(f"{key}: {expected} expected, not {self._config[key]!r}")
        return default


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST_NUMBER


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _with_crop_pct(found: ImagePreprocessing, crop_pct: float) -> ImagePreprocessing:
    """`crop_pct`: the shortest edge is resized to more than is kept, and the middle of it is cropped."""
    edge = found.size.shortest_edge if found.size else None
    if edge is None:
        return found
    square = Size(height=edge, width=edge)
    if edge >= _SQUARE_FROM:
        return replace(found, size=square)
    return replace(found, size=Size(shortest_edge=int(edge / crop_pct)), do_center_crop=True, crop_size=square)
