"""Images become what the Hugging Face image processors make of them, laid out as the model takes them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batch_pipeline.errors import InputFailed
from batch_pipeline.models.binding import FileInput, Tensor
from batch_pipeline.models.preprocessing import ImagePreprocessing, Size
from batch_pipeline.node.images import file_tensor

RNG = np.random.default_rng(7)


def image_input(
    height: int | None, width: int | None, *, channels: int = 3, layout: Any = "NCHW", element: str = "float32"
) -> FileInput:
    sides = (channels, height, width) if layout == "NCHW" else (height, width, channels)
    return FileInput(Tensor("images", element, (None, *sides)), "image", layout, height, width, channels)


def encoded(pixels: Any, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, **options)
    return out.getvalue()


def photo(height: int, width: int) -> Any:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_without_a_configuration_an_image_is_resized_and_scaled() -> None:
    pixels = photo(10, 20)
    tensor = file_tensor(encoded(pixels), image_input(4, 6), ImagePreprocessing.plain())
    expected = np.asarray(Image.fromarray(pixels).resize((6, 4), Image.Resampling.BILINEAR)) / 255
    assert (tensor.shape, tensor.dtype.name) == ((1, 3, 4, 6), "float32")
    np.testing.assert_array_equal(tensor[0], expected.astype(np.float32).transpose(2, 0, 1))


def test_a_uint8_input_takes_the_pixels() -> None:
    pixels = photo(4, 6)
    tensor = file_tensor(encoded(pixels), image_input(4, 6, layout="NHWC", element="uint8"), ImagePreprocessing.plain())
    np.testing.assert_array_equal(tensor[0], pixels)


def test_one_channel_is_grey() -> None:
    pixels = photo(4, 6)
    tensor = file_tensor(encoded(pixels), image_input(4, 6, channels=1), ImagePreprocessing.plain())
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(tensor[0, 0], (grey / 255).astype(np.float32))


def test_the_orientation_that_a_camera_wrote_is_undone() -> None:
    pixels = photo(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    tensor = file_tensor(
        encoded(pixels, exif=exif), image_input(6, 4, layout="NHWC", element="uint8"), ImagePreprocessing.plain()
    )
    np.testing.assert_array_equal(tensor[0], np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    out = io.BytesIO()
    Image.fromarray(photo(4, 6)).convert(mode).save(out, "TIFF")
    tensor = file_tensor(out.getvalue(), image_input(4, 6), ImagePreprocessing.plain())
    assert tensor.shape == (1, 3, 4, 6)


def test_shortest_edge_center_crop_and_normalization() -> None:
    steps = ImagePreprocessing.parse(
        {
            "size": {"shortest_edge": 8},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": 6,
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.4, 0.5, 0.6],
        }
    )
    pixels = photo(10, 23)
    resized = np.asarray(Image.fromarray(pixels).resize((18, 8), Image.Resampling.BICUBIC))
    scaled = (resized[1:7, 6:12].astype(np.float64) * (1 / 255)).astype(np.float32)
    expected = (scaled - np.array([0.1, 0.2, 0.3], np.float32)) / np.array([0.4, 0.5, 0.6], np.float32)
    tensor = file_tensor(encoded(pixels), image_input(6, 6, layout="NHWC"), steps)
    np.testing.assert_array_equal(tensor[0], expected)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    shortest=st.sampled_from([7, 8, 16, 24, 64]),
    crop=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    resample=st.sampled_from(sorted(Image.Resampling)),
)
def test_the_crop_is_cut_out_of_the_whole_image_resized(
    height: int, width: int, shortest: int, crop: tuple[int, int], resample: int
) -> None:
    """Pillow resizes a part by other weights, and may take rows before columns there: other pixels."""
    steps = ImagePreprocessing(
        size=Size(shortest_edge=shortest),
        resample=resample,
        do_center_crop=True,
        crop_size=Size(*crop),
        do_rescale=False,
        do_normalize=False,
    )
    pixels = photo(height, width)
    tensor = file_tensor(encoded(pixels), image_input(None, None, layout="NHWC", element="uint8"), steps)
    edge = min(height, width)
    new_height, new_width = int(shortest * height / edge), int(shortest * width / edge)
    whole = np.asarray(Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling(resample)))
    np.testing.assert_array_equal(tensor[0], middle(whole, *crop))


def middle(pixels: Any, height: int, width: int) -> Any:
    """Padded with zeros to at least the crop, as the processors do, and then cut."""
    rows, columns, _ = pixels.shape
    more = max(0, height - rows), max(0, width - columns)
    padded = np.pad(pixels, (*((one - one // 2, one // 2) for one in more), (0, 0)))
    top, left = (padded.shape[0] - height) // 2, (padded.shape[1] - width) // 2
    return padded[top : top + height, left : left + width]


def test_a_crop_larger_than_the_image_has_zeros_around_it() -> None:
    steps = ImagePreprocessing.parse(
        {"do_resize": False, "do_center_crop": True, "crop_size": 7, "do_rescale": False, "do_normalize": False}
    )
    pixels = photo(4, 5)
    tensor = file_tensor(encoded(pixels), image_input(7, 7, layout="NHWC"), steps)
    expected = np.zeros((7, 7, 3), np.float32)
    expected[2:6, 1:6] = pixels
    np.testing.assert_array_equal(tensor[0], expected)


def test_a_shape_that_does_not_fit_names_both() -> None:
    steps = ImagePreprocessing.parse({"size": {"shortest_edge": 8}, "do_normalize": False})
    with pytest.raises(InputFailed) as failed:
        file_tensor(encoded(photo(8, 16)), image_input(8, 8), steps)
    assert failed.value.code == "wrong_shape"
    assert "[3, 8, 16]" in failed.value.message
    assert "[3, 8, 8]" in failed.value.message


def test_a_free_size_takes_any() -> None:
    steps = ImagePreprocessing.parse({"size": {"shortest_edge": 8}})
    assert file_tensor(encoded(photo(8, 16)), image_input(None, None), steps).shape == (1, 3, 8, 16)


def test_files_that_are_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    good = encoded(photo(64, 64), "JPEG")
    broken = [b"", b"text", good[: len(good) // 2], encoded(photo(64, 64))[:-900], b"\x89PNG\r\n\x1a\n" + b"\0" * 40]
    for data in broken:
        with pytest.raises(InputFailed) as failed:
            file_tensor(data, image_input(8, 8), ImagePreprocessing.plain())
        assert failed.value.code == "not_an_image"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputFailed, match="pixels"):
        file_tensor(good, image_input(8, 8), ImagePreprocessing.plain())


def test_raw_bytes() -> None:
    data = b"\x00\xffabc"
    raw = FileInput(Tensor("data", "uint8", (None,)), "bytes")
    assert file_tensor(data, raw, ImagePreprocessing.plain()).tolist() == list(data)
    text = FileInput(Tensor("data", "string", (None, 1)), "bytes")
    tensor = file_tensor(data, text, ImagePreprocessing.plain())
    assert tensor.shape == (1, 1)
    assert tensor[0, 0].tobytes() == data
