"""The registry in every kind of store."""

from pathlib import Path

import pytest

from batch_pipeline.errors import ModelRefused, StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.models.registry import Registry
from batch_pipeline.storage import Storage
from batch_pipeline_tests.models.packages import EXPORTED, config, write


@pytest.fixture
def registry(storage: Storage, folder: Location, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(storage, folder.child("models/"), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = write(tmp_path_factory.mktemp("here"), "external_data/model", config(), labels_txt="雏菊\n玫瑰\n")
    (source / "model.onnx.data").write_bytes((EXPORTED / "external_data/model.onnx.data").read_bytes())
    return source


def test_the_life_of_a_version(registry, storage, folder, package):
    assert registry.models() == []
    pushed = registry.push(package, "dense-模型:1.10.0")
    assert (pushed.status, pushed.labels) == ("normal", ("雏菊", "玫瑰"))
    registry.push(package, "dense-模型:1.9.0")
    assert registry.resolve("dense-模型") == pushed
    assert [found.version for found in registry.models()] == ["1.9.0", "1.10.0"]
    local = registry.fetch(pushed)
    for name in pushed.files:
        assert (local / name).read_bytes() == (package / name).read_bytes()
    with pytest.raises(ModelRefused, match="exists"):
        registry.push(package, "dense-模型:1.9.0")
    storage.delete([pushed.location.child("model.onnx.data")])
    assert registry.show("dense-模型:1.10.0").status == "abnormal"
    assert registry.resolve("dense-模型").ref == "dense-模型:1.9.0"
    (package / "model.onnx").write_bytes(b"broken")
    replaced = registry.push(package, "dense-模型:1.9.0", force=True)
    assert "does not load" in replaced.reasons[0]


def test_an_unfinished_package_is_not_in_the_way(registry, storage, folder, package):
    registry.push(package, "whole:1")
    storage.write(folder.child("models/half/1/model.onnx"), b"half")
    reasons = {found.ref: found.reasons for found in registry.models()}
    assert reasons["whole:1"] == ()
    assert any("config.json is missing" in one for one in reasons["half:1"])


@pytest.mark.parametrize("folder", ["moto"], indirect=True)
def test_folder_markers_and_names_no_disk_can_keep(registry, storage, folder, package):
    pushed = registry.push(package, "whole:1")
    client = storage.connection.client
    for key in ("models/", "models/whole/", "models/whole/1/", "models/empty/1/"):
        client.put_object(Bucket=folder.bucket, Key=key, Body=b"")
    assert registry.resolve("whole") == pushed
    assert "config.json is missing" in registry.show("empty:1").reasons[0]
    client.put_object(Bucket=folder.bucket, Key="models/whole/1/../../escaped", Body=b"x")
    client.put_object(Bucket=folder.bucket, Key="models/whole/1/a//b", Body=b"x")
    client.put_object(Bucket=folder.bucket, Key="models/whole/1/model.onnx/inner", Body=b"x")
    found = registry.show("whole:1")
    assert found.status == "abnormal"
    assert len([one for one in found.reasons if "cannot be kept on a disk" in one]) == 3


@pytest.mark.parametrize("folder", ["file"], indirect=True)
def test_a_cache_that_cannot_be_used_is_named(storage, folder, package, tmp_path):
    (tmp_path / "taken").write_text("")
    registry = Registry(storage, folder.child("models/"), tmp_path / "taken")
    with pytest.raises(StorageFailed, match="BATCH_PIPELINE_CACHE"):
        registry.push(package, "whole:1")
