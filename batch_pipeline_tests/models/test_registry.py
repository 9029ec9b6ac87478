"""The registry over real files: status, versions, push, and the local cache."""

import hashlib
import pickle
from pathlib import Path

import pytest

from batch_pipeline.errors import ModelRefused
from batch_pipeline.locations import Location
from batch_pipeline.models.registry import Registry
from batch_pipeline.storage import Storage
from batch_pipeline_tests.models.packages import EXPORTED, FILE_REQUEST, api, config, schema, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def registry(tmp_path: Path, root: Path) -> Registry:
    location = Location("", f"{str(root).lstrip('/')}/", "file")
    return Registry(Storage(allow_local=True), location, tmp_path / "cache")


def refusal(call, *args, **keys):
    with pytest.raises(ModelRefused) as refused:
        call(*args, **keys)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_an_empty_registry(registry):
    assert registry.names() == ()
    assert registry.models() == []
    assert "no model 'iris'" in refusal(registry.resolve, "iris:1.0.0")
    assert "no models" in refusal(registry.resolve, "iris")


def test_a_normal_version(registry, root):
    folder = write(root / "iris/1.0.0", "logistic", config(api(schema("a", "b", "c", "d"))), labels_txt="x\ny\nz")
    found = registry.resolve("iris:1.0.0")
    assert (found.ref, found.status, found.reasons) == ("iris:1.0.0", "normal", ())
    assert found.sha256 == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert set(found.files) == {"config.json", "model.onnx", "labels.txt"}
    assert found.size == sum(file.stat().st_size for file in folder.iterdir())
    assert (found.labels, found.model_file, found.automatic_learning) == (("x", "y", "z"), "model.onnx", False)
    assert len(found.bind("/").columns) == 1
    assert found.request_schema("/") == schema("a", "b", "c", "d")
    assert pickle.loads(pickle.dumps(found)) == found


def test_an_unknown_url_lists_the_model_s(registry, root):
    write(root / "iris/1.0.0", "logistic", config({"url": "/a"}, {"url": "/b"}))
    found = registry.resolve("iris")
    assert "/a, /b" in refusal(found.bind, "/")
    assert "/a, /b" in refusal(found.api, "/c")


def test_a_request_without_leaves_gets_a_schema(registry, root):
    write(root / "iris/1.0.0", "logistic", config())
    assert list(registry.resolve("iris").request_schema("/")["properties"]) == ["X_1", "X_2", "X_3", "X_4"]


def test_a_name_means_its_newest_normal_version(registry, root):
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        write(root / "iris" / version, "logistic", config())
    write(root / "iris/2.0.0", "logistic", config(model_type="TensorFlow"))
    write(root / "iris2/3.0.0", "logistic", config())
    assert registry.resolve("iris").ref == registry.show("iris").ref == "iris:1.10.0"
    assert [found.ref for found in registry.models()] == [
        "iris:1.2.0",
        "iris:1.9.0",
        "iris:1.10.0",
        "iris:2.0.0",
        "iris2:3.0.0",
    ]
    assert registry.names() == ("iris", "iris2")


def test_what_is_not_there_lists_what_is(registry, root):
    for version in ("1.10.0", "1.9.0"):
        write(root / "iris" / version, "logistic", config())
    assert "it has 1.9.0, 1.10.0" in refusal(registry.resolve, "iris:1.0.0")
    assert "has iris" in refusal(registry.resolve, "rose")
    assert "name:version" in refusal(registry.resolve, "../models/iris:1.9.0")


def test_a_listing_that_came_back_empty_is_told_as_such(tmp_path, root):
    class Forgetful(Storage):
        listed = 0

        def list(self, *given, **more):
            self.listed += 1
            return iter(()) if self.listed == 1 else super().list(*given, **more)

    write(root / "mlp/1.0.0", "logistic", config())
    registry = Registry(Forgetful(allow_local=True), Location("", f"{root}/"[1:], "file"), tmp_path / "cache")
    assert refusal(registry.show, "mlp") == (
        "model: mlp was listed without a version, and a moment later with 1.0.0; try again"
    )


def test_what_is_not_normal_says_why(registry, root):
    write(root / "iris/1.0.0", "logistic", config(model_type="TensorFlow"))
    for ref in ("iris:1.0.0", "iris"):
        assert "'TensorFlow'; ONNX is expected" in refusal(registry.resolve, ref)
        assert registry.show(ref).status == "abnormal"


def test_a_package_being_uploaded_is_abnormal_until_it_is_whole(registry, root):
    folder = root / "iris/1.0.0"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes((EXPORTED / "logistic.onnx").read_bytes())
    assert "config.json is missing" in "; ".join(registry.models()[0].reasons)
    write(folder, None, config())
    assert registry.models()[0].status == "normal"


def test_a_stray_file_is_no_package(registry, root):
    write(root / "iris/1.0.0", "logistic", config())
    (root / "README.md").write_text("x")
    (root / "iris/notes.txt").write_text("x")
    assert [found.ref for found in registry.models()] == ["iris:1.0.0"]


def test_external_data_counts_in_the_digest(registry, root):
    folder = write(root / "dense/1", "external_data/model", config())
    assert "does not load" in "; ".join(registry.show("dense:1").reasons)
    (folder / "model.onnx.data").write_bytes((EXPORTED / "external_data/model.onnx.data").read_bytes())
    whole = registry.resolve("dense:1")
    (folder / "model.onnx.data").write_bytes(bytes(len((folder / "model.onnx.data").read_bytes())))
    changed = registry.resolve("dense:1")
    assert whole.sha256 == changed.sha256
    assert whole.digest != changed.digest


def test_push_and_fetch(registry, root, tmp_path):
    source = write(tmp_path / "here", "external_data/model", config())
    (source / "model.onnx.data").write_bytes((EXPORTED / "external_data/model.onnx.data").read_bytes())
    (source / ".DS_Store").write_text("x")
    (source / "docs").mkdir()
    (source / "docs/read me.md").write_text("x")
    found = registry.push(source, "dense:1.0.0")
    assert found.status == "normal"
    assert set(found.files) == {"config.json", "model.onnx", "model.onnx.data", "docs/read me.md"}
    folder = registry.fetch(found)
    assert {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} == set(found.files)


def test_push_refuses_what_exists_unless_forced(registry, tmp_path):
    source = write(tmp_path / "here", "logistic", config(), labels_txt="a")
    first = registry.push(source, "iris:1.0.0")
    assert "exists" in refusal(registry.push, source, "iris:1.0.0")
    (source / "labels.txt").unlink()
    second = registry.push(source, "iris:1.0.0", force=True)
    assert set(second.files) == {"config.json", "model.onnx"}
    assert first.digest != second.digest


def test_push_replaces_what_an_unfinished_push_left(registry, root, tmp_path):
    (root / "iris/1.0.0").mkdir(parents=True)
    (root / "iris/1.0.0/old.bin").write_bytes(b"x")
    pushed = registry.push(write(tmp_path / "here", "logistic", config()), "iris:1.0.0")
    assert set(pushed.files) == {"config.json", "model.onnx"}


@pytest.mark.parametrize("ref", ["iris", "iris:", "a/b:1", "iris:../1", ""])
def test_push_needs_a_name_and_a_version(registry, tmp_path, ref):
    assert "name:version" in refusal(registry.push, write(tmp_path / "here", "logistic", config()), ref)


def test_push_needs_a_package(registry, tmp_path):
    assert "config.json" in refusal(registry.push, tmp_path, "iris:1")
    assert "config.json" in refusal(registry.push, tmp_path / "nothing", "iris:1")


def test_pushing_an_abnormal_package_tells_so(registry, tmp_path):
    source = write(tmp_path / "here", "images_nchw", config({"request": FILE_REQUEST}), labels_txt="\n")
    assert registry.push(source, "rose:1").reasons == ("labels.txt is empty; one label a line is expected",)


def test_a_damaged_cache_is_made_good(registry, root):
    write(root / "iris/1.0.0", "logistic", config())
    found = registry.resolve("iris")
    folder = registry.fetch(found)
    before = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(b"damaged")
    assert (registry.fetch(found) / "model.onnx").read_bytes() == before
    (folder / "config.json").unlink()
    assert (registry.fetch(found) / "config.json").is_file()


def test_a_package_that_was_replaced_is_not_fetched_as_the_old_one(registry, root, tmp_path):
    write(root / "iris/1.0.0", "logistic", config())
    found = registry.resolve("iris")
    write(root / "iris/1.0.0", "logistic", config(metrics={"f1": 1}))
    other = Registry(Storage(allow_local=True), Location("", f"{str(root).lstrip('/')}/", "file"), tmp_path / "other")
    assert "changed" in refusal(other.fetch, found)
    assert (registry.fetch(found) / "config.json").is_file()


def test_judgements_are_kept_by_what_the_package_holds(registry, root, tmp_path):
    write(root / "iris/1.0.0", "logistic", config())
    first = registry.models()
    judged = sorted((tmp_path / "cache/status").iterdir())
    assert registry.models() == first
    assert sorted((tmp_path / "cache/status").iterdir()) == judged
    judged[0].write_text("{")
    assert registry.models() == first
    write(root / "iris/1.0.0", "logistic", config(model_type="MXNet"))
    assert registry.models()[0].status == "abnormal"
    assert not list((tmp_path / "cache").rglob(".part-*"))


def test_names_that_no_service_can_use_are_abnormal(registry, root):
    write(root / "my iris/1.0.0", "logistic", config())
    assert "no name and version" in registry.models()[0].reasons[0]
