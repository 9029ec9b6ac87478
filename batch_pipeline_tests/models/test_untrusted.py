"""Packages that mean no good: each is abnormal with a reason, and nothing outside of it is read, run, or waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from batch_pipeline.errors import ModelRefused, StorageFailed
from batch_pipeline.locations import parse_folder
from batch_pipeline.models import labels, onnx_model
from batch_pipeline.models.json_files import LARGEST, read_json
from batch_pipeline.models.package import PackageConfig, read_apis, read_config
from batch_pipeline.models.preprocessing import ImagePreprocessing
from batch_pipeline.models.registry import Registry
from batch_pipeline.models.status import inspect_package
from batch_pipeline.storage import Storage
from batch_pipeline_tests.faults import poisons
from batch_pipeline_tests.models.packages import api, config, schema, write

INPUT, OUTPUT = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in "xy")
CONFIG = config(api(schema("a", "b", "c", "d")))


def package(folder: Path, model: onnx.ModelProto | bytes) -> Path:
    write(folder, None, CONFIG)
    (folder / "model.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return folder


def model(*nodes: onnx.NodeProto, weights: tuple[TensorProto, ...] = (), functions: object = ()) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "graph", [INPUT], [OUTPUT], list(weights))
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8, functions=functions)


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def as_weight(location: str) -> onnx.ModelProto:
    return model(helper.make_node("Add", ["x", "w"], ["y"]), weights=(external(location),))


def as_constant(location: str) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["c"], value=external(location))
    return model(constant, helper.make_node("Add", ["x", "c"], ["y"]))


def in_a_branch(location: str) -> onnx.ModelProto:
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, 4])
    branch = helper.make_graph([helper.make_node("Add", ["x", "w"], ["z"])], "b", [], [z], [external(location)])
    condition = helper.make_tensor("b", TensorProto.BOOL, [], [True])
    return model(helper.make_node("If", ["b"], ["y"], then_branch=branch, else_branch=branch), weights=(condition,))


def in_a_function(location: str) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["c"], value=external(location))
    body = [constant, helper.make_node("Add", ["a", "c"], ["r"])]
    function = helper.make_function("mine", "F", ["a"], ["r"], body, [helper.make_opsetid("", 17)])
    return model(helper.make_node("F", ["x"], ["y"], domain="mine"), functions=[function])


@pytest.mark.parametrize("made", [as_weight, as_constant, in_a_branch, in_a_function])
@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "{root}/secret", "/proc/self/environ"])
def test_external_data_outside_of_the_package(
    tmp_path: Path, made: Callable[[str], onnx.ModelProto], location: str
) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    folder = package(tmp_path / "package", made(location.format(root=tmp_path)))
    (folder / "a").mkdir()
    (reason,) = inspect_package(folder).reasons
    assert "does not load" in reason


def test_external_data_inside_of_the_package(tmp_path: Path) -> None:
    folder = package(tmp_path / "package", as_weight("data"))
    (folder / "data").write_bytes(bytes(16))
    assert inspect_package(folder).reasons == ()


@pytest.mark.parametrize("target", ["../secret", "/etc/hostname"])
def test_external_data_through_a_link(tmp_path: Path, target: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    folder = package(tmp_path / "package", as_weight("data"))
    (folder / "data").symlink_to(target)
    (reason,) = inspect_package(folder).reasons
    assert "does not load" in reason


def test_operators_of_other_libraries(tmp_path: Path) -> None:
    """Only ONNX Runtime's own operators exist: nothing registers a library, whatever a package brings."""
    folder = package(tmp_path / "package", model(helper.make_node("Mine", ["x"], ["y"], domain="mine")))
    (folder / "libmine.so").write_bytes(b"\x7fELF")
    (reason,) = inspect_package(folder).reasons
    assert "does not load" in reason


def doubling(depth: int) -> onnx.ModelProto:
    """A small file whose functions call each other twice each: 2^depth nodes, once they are put in place."""
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    calls = [helper.make_node("Identity", ["a"], ["r"])]
    functions = []
    for level in range(depth):
        functions.append(helper.make_function("mine", f"F{level}", ["a"], ["r"], calls, sets))
        calls = [
            helper.make_node(f"F{level}", ["a"], ["b"], domain="mine"),
            helper.make_node(f"F{level}", ["b"], ["r"], domain="mine"),
        ]
    last = helper.make_node(f"F{depth - 1}", ["x"], ["y"], domain="mine")
    return model(last, functions=functions)


def test_a_model_that_takes_forever_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "SECONDS", 3.0)
    (reason,) = inspect_package(package(tmp_path / "package", doubling(40))).reasons
    assert "had not after 3 seconds" in reason


def test_a_model_that_takes_forever_to_optimize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a node loads it, in a process that nothing of a model can end."""
    monkeypatch.setattr(onnx_model, "SECONDS", 5.0)
    folder = write(tmp_path / "package", None, config(api(schema("x"))))
    poisons.folded(folder / "model.onnx")
    (reason,) = inspect_package(folder).reasons
    assert reason == "model.onnx does not load: it had not after 5 seconds"


def test_a_model_that_kills_what_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = tmp_path / "trial.py"
    trial.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(onnx_model.onnx_trial, "__file__", str(trial))
    (reason,) = inspect_package(package(tmp_path / "package", b"")).reasons
    assert reason == "model.onnx does not load: ONNX Runtime came to its end over it (signal 11)"


def test_a_model_is_loaded_without_the_deployments_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = tmp_path / "trial.py"
    trial.write_text("import json, os\nprint(json.dumps({'error': ' '.join(os.environ)}))")
    monkeypatch.setattr(onnx_model.onnx_trial, "__file__", str(trial))
    secrets = ["AWS_SECRET_ACCESS_KEY", "BATCH_PIPELINE_MODELS", "DAGSTER_PG_PASSWORD", "PASSWORD_OF_A_SERVICE"]
    for name in secrets:
        monkeypatch.setenv(name, "SECRET")
    (reason,) = inspect_package(package(tmp_path / "package", b"")).reasons
    assert "PATH" in reason
    assert [name for name in secrets if name in reason] == []


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.binary(min_size=1, max_size=8))
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, junk: bytes, place: int, patch: bytes) -> None:
    whole = as_constant("data").SerializeToString()
    for content in (junk, whole[:place] + patch + whole[place + len(patch) :]):
        inspect_package(package(tmp_path_factory.mktemp("package"), content))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "labels.txt", "id2label.json"])
def test_files_too_large_to_be_what_they_are_called(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "package", "logistic", CONFIG)
    with (folder / name).open("wb") as file:
        file.truncate(LARGEST + 1)
    assert any(reason.startswith(f"{name} is larger") for reason in inspect_package(folder).reasons)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "id2label.json"])
@pytest.mark.parametrize("levels", [241, 990, 100_000])
def test_files_that_are_nested_too_deeply(tmp_path: Path, name: str, levels: int) -> None:
    folder = write(tmp_path / "package", "logistic", CONFIG)
    (folder / name).write_text('{"a": ' * levels + "1" + "}" * levels)
    assert any(reason.startswith(f"{name} is nested too deeply") for reason in inspect_package(folder).reasons)


SIDES = st.sampled_from(["height", "width", "shortest_edge", "longest_edge"])
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**31, 0, 1e308])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SIDES | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
STEPS = st.sampled_from(
    [
        *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
        *("do_normalize", "image_mean", "image_std", "do_convert_rgb", "crop_pct"),
    ]
)
SIZES = st.dictionaries(SIDES, st.integers(1, 40000), min_size=1, max_size=2)


@given(st.dictionaries(STEPS, VALUES | SIZES))
def test_whatever_preprocessor_config_says(content: dict[str, object]) -> None:
    try:
        steps = ImagePreprocessing.parse(content)
    except ModelRefused:
        return
    for size in (steps.size, steps.crop_size):
        for side in (size.height, size.width, size.shortest_edge, size.longest_edge) if size else ():
            assert side is None or 0 < side <= 16384


DOCUMENTS = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode())


@given(DOCUMENTS)
def test_whatever_the_files_hold(content: bytes) -> None:
    found, problems = read_config(content)
    assert found is not None or problems
    read_apis(found or PackageConfig())
    for read in (lambda: labels.parse(read_json(content, "labels"), "labels"), lambda: labels._lines(content)):
        with suppress(ModelRefused):
            assert all(isinstance(label, str) for label in read())


def registry(root: Path) -> Registry:
    write(root / "models/iris/1.0.0", "logistic", CONFIG)
    storage = Storage(allow_local=True)
    return Registry(storage, parse_folder(f"file://{root}/models/", allow_local=True), root / "cache")


def test_a_file_that_is_another_when_it_is_loaded(tmp_path: Path) -> None:
    """In the cache it is fetched anew; in the registry it is refused."""
    models = registry(tmp_path)
    version = models.resolve("iris")
    cached = models.fetch(version) / "model.onnx"
    good = cached.read_bytes()
    cached.write_bytes(b"evil")
    assert (models.fetch(version) / "model.onnx").read_bytes() == good
    (tmp_path / "models/iris/1.0.0/model.onnx").write_bytes(b"evil")
    cached.write_bytes(b"evil")
    with pytest.raises(ModelRefused, match="changed"):
        models.fetch(version)


def test_the_cache_is_for_one_user_alone(tmp_path: Path) -> None:
    for name in ("packages", "status"):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name).chmod(0o777)
    registry(tmp_path).resolve("iris")
    assert [(tmp_path / "cache" / name).stat().st_mode & 0o777 for name in ("packages", "status")] == [0o700] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("name", ["packages", "status"])
def test_the_cache_of_another_user(tmp_path: Path, name: str) -> None:
    (tmp_path / "cache" / name).mkdir(parents=True)
    os.chown(tmp_path / "cache" / name, 12345, 12345)
    with pytest.raises(StorageFailed, match="belongs to another user"):
        registry(tmp_path).resolve("iris")


@pytest.mark.parametrize("name", ["x" * 300, "./model.onnx", "model.onnx/", "\0"])
def test_a_name_of_a_model_file_that_is_none_makes_its_package_abnormal_and_no_other(tmp_path: Path, name: str) -> None:
    models = registry(tmp_path)
    write(tmp_path / "models/bad/1.0.0", "logistic", CONFIG | {"onnx": {"model_file": name}})
    bad, good = models.models()
    assert (good.ref, good.status) == ("iris:1.0.0", "normal")
    assert (bad.ref, bad.status, len(bad.reasons)) == ("bad:1.0.0", "abnormal", 1)


def test_a_path_that_is_too_long_for_the_cache_makes_its_package_abnormal_and_no_other(tmp_path: Path) -> None:
    """Shorter than a path may be where it stands, but not below a cache's folder of a long name."""
    write(tmp_path / "m/iris/1.0.0", "logistic", CONFIG)
    folder = write(tmp_path / "m/bad/1.0.0", "logistic", CONFIG)
    left = 4000 - len(str(folder))
    (folder / "/".join(["x" * 99] * (left // 100))).mkdir(parents=True)
    (folder / "/".join(["x" * 99] * (left // 100)) / "labels").write_text("")
    cache = tmp_path / ("c" * 200) / "cache"
    models = Registry(Storage(allow_local=True), parse_folder(f"file://{tmp_path}/m/", allow_local=True), cache)
    bad, good = models.models()
    assert (good.ref, good.status) == ("iris:1.0.0", "normal")
    assert bad.status == "abnormal"
    assert "cannot be kept on a disk" in bad.reasons[0]


LINKS = {
    "bad/1.0.0/labels.txt": "/etc/passwd",
    "bad/1.0.0/data": "../../../outside",
    "bad/2.0.0": "../../outside",
    "worse": "../outside",
}


@pytest.mark.parametrize("link", LINKS)
def test_a_link_out_of_a_registry_makes_its_package_abnormal_and_no_other(tmp_path: Path, link: str) -> None:
    models = registry(tmp_path)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/config.json").write_text("SECRET")
    if link.startswith("bad/1.0.0"):
        write(tmp_path / "models/bad/1.0.0", "logistic", CONFIG)
    (tmp_path / "models" / link).parent.mkdir(exist_ok=True)
    (tmp_path / "models" / link).symlink_to(LINKS[link])
    bad, good = models.models() if link != "worse" else reversed(models.models())
    assert good.ref == "iris:1.0.0"
    assert good.status == "normal"
    assert models.resolve("iris").status == "normal"
    name, _, rest = link.partition("/")
    assert (bad.name, bad.version) == (name, rest.partition("/")[0])
    assert bad.status == "abnormal"
    assert any("leads through a link out of the folder" in reason for reason in bad.reasons)
    assert models.names() == tuple(sorted(["iris", name]))
    assert set(models.stamps()) == ({"iris:1.0.0", bad.ref} if bad.version else {"iris:1.0.0"})
    with pytest.raises(ModelRefused, match=r"is not normal: .* link out of the folder"):
        models.resolve(bad.ref if bad.version else bad.name)


def test_a_package_with_a_link_out_of_the_registry_is_replaced_by_a_push(tmp_path: Path) -> None:
    models = registry(tmp_path)
    good = write(tmp_path / "good", "logistic", CONFIG)
    (tmp_path / "models/iris/1.0.0/labels.txt").symlink_to("/etc/passwd")
    stamp = models.stamps()
    assert models.push(good, "iris:1.0.0", force=True).status == "normal"
    assert models.stamps() != stamp
    assert Path("/etc/passwd").is_file()


@pytest.mark.parametrize("link", ["labels.txt", "config.json", "model.onnx", "extra", "a/b"])
@pytest.mark.parametrize("target", ["../mine", "{root}/mine", "../folder", "../nothing", "labels/../../mine"])
def test_a_package_with_a_link_out_of_it_is_not_pushed(tmp_path: Path, link: str, target: str) -> None:
    """As a package that somebody was sent may have one, to a key of theirs."""
    models = registry(tmp_path)
    folder = write(tmp_path / "sent", "logistic", CONFIG)
    (folder / "a").mkdir()
    (folder / "labels").mkdir()
    (tmp_path / "mine").write_text(json.dumps(CONFIG))
    (tmp_path / "folder").mkdir()
    target = target.format(root=tmp_path)
    (folder / link).unlink(missing_ok=True)
    (folder / link).symlink_to(target if "/" not in link or target[0] == "/" else f"../{target}")
    with pytest.raises(ModelRefused) as refused:
        models.push(folder, "iris:1.0.0", force=True)
    if link != "config.json" or (folder / link).is_file():
        assert f"{folder / link} is a link out of the package, to {tmp_path}" in refused.value.message
        assert "cp -rL" in refused.value.message
    assert models.resolve("iris").ref == "iris:1.0.0"


def test_a_package_with_links_within_it_is_pushed(tmp_path: Path) -> None:
    models = registry(tmp_path)
    folder = write(tmp_path / "here", "logistic", CONFIG)
    (folder / "model.onnx").rename(folder / "weights")
    (folder / "model.onnx").symlink_to("weights")
    (folder / ".cache").symlink_to("/etc")
    (folder / "round").symlink_to("round")
    (tmp_path / "link").symlink_to(folder)
    assert set(models.push(tmp_path / "link", "linked:1").files) == {"config.json", "model.onnx", "weights"}
    assert models.resolve("linked").status == "normal"
