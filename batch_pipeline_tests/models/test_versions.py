import random

import pytest

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.versions import parse_ref, version_key


def test_versions_sort_as_versions():
    ordered = ["alpha", "build-9", "build-10", "0.9", "1.0rc1", "1.0.0", "1.9.0", "1.10.0", "2024.1"]
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled, key=version_key) == ordered


def test_references():
    assert parse_ref("iris:1.10.0") == ("iris", "1.10.0")
    assert parse_ref("图像-分类_2") == ("图像-分类_2", None)


@pytest.mark.parametrize("ref", ["", ":", "a:", ":1", "a:b:c", "../a:1", "a/b:1", "a:..", "a b", "a:1/2", "a\n"])
def test_what_is_no_reference_is_refused(ref):
    with pytest.raises(ModelRefused, match="name:version"):
        parse_ref(ref)
