import json

import pytest

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.preprocessing import ImagePreprocessing, Size, load


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (224, Size(height=224, width=224)),
        ([8, 16], Size(height=8, width=16)),
        ({"height": 8, "width": 16}, Size(height=8, width=16)),
        ({"shortest_edge": 256}, Size(shortest_edge=256)),
        ({"shortest_edge": 800, "longest_edge": 1333}, Size(shortest_edge=800, longest_edge=1333)),
        ({"height": 8, "width": 8, "shortest_edge": None}, Size(height=8, width=8)),
        (None, None),
    ],
)
def test_sizes(size, expected):
    assert ImagePreprocessing.parse({"size": size}).size == expected


def test_a_real_configuration():
    config = {
        "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True,
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": 224},
    }
    found = ImagePreprocessing.parse(config)
    assert found.crop_size == Size(height=224, width=224)
    assert found.size == Size(shortest_edge=224)
    assert (found.do_center_crop, found.do_convert_rgb, found.resample) == (True, True, 3)
    assert found.image_std == (0.26862954, 0.26130258, 0.27577711)


def test_crop_pct_crops_small_sizes_only():
    found = ImagePreprocessing.parse({"size": {"shortest_edge": 224}, "crop_pct": 0.875})
    assert (found.size, found.crop_size) == (Size(shortest_edge=256), Size(height=224, width=224))
    assert ImagePreprocessing.parse({"size": {"shortest_edge": 384}, "crop_pct": 1.0}).do_center_crop is False


def test_every_wrong_key_is_named():
    config = {
        "size": {"edge": 1},
        "do_resize": 1,
        "image_std": [1, 0],
        "resample": 9,
        "image_mean": "a",
        "crop_size": 0,
    }
    with pytest.raises(ModelRefused) as refused:
        ImagePreprocessing.parse(config)
    assert all(f"{key}:" in refused.value.message for key in config)


def test_the_file_of_a_package(tmp_path):
    assert load(tmp_path) == ImagePreprocessing.plain()
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"do_normalize": False}))
    assert load(tmp_path) == ImagePreprocessing(do_normalize=False)
    for text in ("{", "[]"):
        file.write_text(text)
        with pytest.raises(ModelRefused, match=r"preprocessor_config\.json"):
            load(tmp_path)


@pytest.mark.parametrize("size", [16384, {"height": 16384, "width": 16384}, {"shortest_edge": 16384}])
@pytest.mark.parametrize(("key", "step"), [("size", "do_resize"), ("crop_size", "do_center_crop")])
def test_a_size_of_more_pixels_than_an_image_may_have(key: str, step: str, size: object) -> None:
    with pytest.raises(ModelRefused, match=rf"preprocessor_config\.json: {key}: .*more than 178,956,970 pixels"):
        ImagePreprocessing.parse({step: True, key: size})
    ImagePreprocessing.parse({step: False, key: size})


def test_a_size_that_only_some_images_are_too_large_for() -> None:
    for size in ({"height": 13_000, "width": 13_000}, {"shortest_edge": 16384, "longest_edge": 16384}):
        ImagePreprocessing.parse({"do_resize": True, "size": size})
