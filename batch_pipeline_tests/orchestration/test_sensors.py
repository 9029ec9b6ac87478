"""The sensors of a declaration: one service for each arrival, whatever becomes of ticks and runs; and what they say."""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from batch_pipeline.locations import parse_location
from batch_pipeline.orchestration import services
from batch_pipeline.orchestration.declaration import Declaration
from batch_pipeline.orchestration.requests import TickFailed
from batch_pipeline.storage import Storage
from batch_pipeline.storage.timeouts import Timeouts
from batch_pipeline.triggers.settings import ManifestTrigger, NewFilesTrigger, NotificationTrigger
from batch_pipeline_tests.orchestration.ticks import Sensor, definitions_of

FAILED = dg.DagsterRunStatus.FAILURE


@pytest.fixture
def drop(place):
    """Writes a manifest into the watched folder."""
    (place.root / "orders").mkdir()

    def write(name: str, *sources: str) -> Path:
        lines = [json.dumps({"source": source}) + "\n" for source in sources or (place.put("a.csv"),)]
        path: Path = place.root / "orders" / f"{name}.manifest"
        path.write_text("".join(lines))
        return path

    return write


@pytest.fixture
def declaration(place):
    template = {
        "model": "iris",
        "output_path": f"file://{place.root}/out/{{stem}}-{{etag8}}/",
        "description": "Answers to {stem}",
    }
    return Declaration("reviews", template, triggers=(ManifestTrigger(f"file://{place.root}/orders/"),))


@pytest.fixture
def sensor(instance, declaration, drop):
    return Sensor(instance, declaration)


def name_of(path: Path, sensor: Sensor) -> str:
    """The service of the manifest as it now is, from the words of the specification."""
    (arrival,) = [run for run in sensor.evaluate().runs if str(path) in str(run.run_key)]
    etag = str(arrival.run_key).rpartition(" ")[2]
    digest = hashlib.sha256(f"{str(path).removeprefix('/')}\n{etag}".encode()).hexdigest()[:8]
    return f"{path.stem.replace(' ', '-').replace('.', '-')}-{digest}"


def test_a_new_manifest_deploys_one_service(instance, place, sensor, drop):
    assert sensor.tick().runs == []
    path = drop("2026.11 orders")
    name = name_of(path, sensor)
    tick = sensor.tick()
    assert tick.names == [name]
    assert instance.get_dynamic_partitions("reviews") == [name]
    config = tick.config()
    assert config["input_path"] == f"file://{path}"
    assert config["output_path"] == f"file://{place.root}/out/2026.11 orders-{name[-8:]}/"
    assert config["description"] == "Answers to 2026.11 orders"
    assert tick.runs[0].tags["batch_pipeline/service"] == f"reviews/{name}"
    for _ in range(3):
        assert sensor.tick().runs == []


def test_the_service_runs(instance, place, sensor, drop):
    drop("orders")
    (run,) = sensor.tick(launch=0).runs
    done = sensor.job.execute_in_process(
        instance=instance, run_config=run.run_config, partition_key=run.partition_key, tags=run.tags
    )
    assert done.success
    (listed,) = services.list_services(instance)
    assert (listed.name, listed.state) == (f"reviews/{run.partition_key}", "finished")
    assert (place.root / f"out/orders-{run.partition_key[-8:]}/infer-result-0.manifest").exists()
    assert sensor.tick().runs == []


def test_a_rewritten_manifest_deploys_another(instance, place, sensor, drop):
    drop("orders")
    first = sensor.tick()
    drop("orders", place.put("a.csv"), place.put("b.csv"))
    second = sensor.tick()
    assert len(first.names) == len(second.names) == 1
    assert first.names != second.names
    assert first.run_keys != second.run_keys
    assert set(instance.get_dynamic_partitions("reviews")) == {*first.names, *second.names}


def test_a_tick_that_is_lost_is_made_again_with_the_same_run_keys(sensor, drop):
    for number in range(3):
        drop(f"orders-{number}")
    lost = sensor.evaluate()
    assert len(lost.runs) == 3
    again = sensor.evaluate()
    assert (again.run_keys, again.names) == (lost.run_keys, lost.names)
    assert [run.run_config for run in again.runs] == [run.run_config for run in lost.runs]


def test_a_tick_killed_between_its_runs_asks_for_the_others(sensor, drop):
    for number in range(3):
        drop(f"orders-{number}")
    killed = sensor.tick(launch=1)
    assert sensor.tick().names == killed.names[1:]
    assert sensor.tick().runs == []


def test_a_run_that_a_killed_tick_made_and_did_not_launch_is_asked_for_again(sensor, drop):
    drop("orders")
    killed = sensor.tick(launch=0)
    sensor.make(killed.runs[0], dg.DagsterRunStatus.NOT_STARTED)
    assert sensor.evaluate().run_keys == killed.run_keys


def test_runs_that_never_came_to_be_are_asked_for_by_the_next_tick(sensor, drop):
    """As where making a run fails, and the cursor is kept."""
    drop("orders")
    lost = sensor.tick(launch=0)
    sensor.cursor = lost.cursor
    assert sensor.tick().run_keys == lost.run_keys


@pytest.mark.parametrize("keeps_cursor", [True, False])
def test_a_failed_run_is_not_made_again(sensor, drop, keeps_cursor):
    drop("orders")
    assert len(sensor.tick(status=FAILED).runs) == 1
    if not keeps_cursor:
        sensor.cursor = None
    assert sensor.tick().runs == []


def test_a_deleted_service_is_not_deployed_again(instance, sensor, drop):
    drop("orders")
    drop("others")
    names = sensor.tick().names
    for name in names:
        services.delete_service(instance, f"reviews/{name}")
    assert sensor.tick().runs == []
    drop("more")
    assert len(sensor.tick().runs) == 1
    assert sensor.tick().runs == []


def test_the_rest_waits_where_the_limit_of_services_is_reached(instance, sensor, drop, monkeypatch):
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "2")
    for number in range(3):
        drop(f"orders-{number}")
    first = sensor.tick().names
    assert len(first) == 2
    full = sensor.tick()
    assert full.runs == []
    assert "the limit of 2 services is reached: 1 manifest waiting" in full.message
    services.delete_service(instance, f"reviews/{first[0]}")
    last = sensor.tick().names
    assert len(last) == 1
    assert last[0] not in first


def test_more_than_one_tick_asks_for_wait_for_the_next(sensor, drop, monkeypatch):
    monkeypatch.setattr("batch_pipeline.orchestration.sensors.MOST", 2)
    for number in range(5):
        drop(f"orders-{number}")
    ticks = [sensor.tick().names for _ in range(4)]
    assert [len(names) for names in ticks] == [2, 2, 1, 0]
    assert len({name for names in ticks for name in names}) == 5


def test_refused_parameters_do_not_hold_up_others(place, instance, drop, monkeypatch):
    """Also where so many are refused that they are all that one look finds."""
    monkeypatch.setattr("batch_pipeline.orchestration.sensors.MOST", 2)
    template = {"model": "{stem}", "output_path": f"file://{place.root}/out/{{name}}/"}
    trigger = ManifestTrigger(f"file://{place.root}/orders/")
    sensor = Sensor(instance, Declaration("reviews", template, triggers=(trigger,)))
    for name in ("no model", "no model, too", "nor this"):
        drop(name)
    with pytest.raises(TickFailed, match=r"refused, to be tried again: .*no model.*model") as failed:
        sensor.tick()
    assert "\n" not in str(failed.value)
    drop("iris")
    tick = sensor.tick()
    assert [name[:5] for name in tick.names] == ["iris-"]
    assert tick.config()["model"] == "iris"
    with pytest.raises(TickFailed, match="refused"):
        sensor.tick()


def test_what_goes_away_and_comes_back_is_not_taken_twice(place, sensor, drop):
    drop("orders")
    known = sensor.tick().names
    (place.root / "orders").rename(place.root / "elsewhere")
    assert sensor.tick().runs == []
    (place.root / "elsewhere").rename(place.root / "orders")
    drop("others")
    assert [name[:6] for name in sensor.tick().names] == ["others"]
    assert len(known) == 1


def test_a_bucket_that_is_gone_or_refuses_fails_the_tick_and_the_next_recovers(
    instance, declaration, place, storage, rgw_bucket, monkeypatch
):
    trigger = ManifestTrigger(f"s3://{rgw_bucket}/orders/", state_path=f"s3://{rgw_bucket}/state/")
    sensor = Sensor(instance, replace(declaration, triggers=(trigger,)))
    body = json.dumps({"source": place.put("a.csv")}).encode()
    storage.write(parse_location(f"s3://{rgw_bucket}/orders/one.manifest"), body)
    assert [name[:4] for name in sensor.tick().names] == ["one-"]
    for variable, value, said in (
        ("AWS_SECRET_ACCESS_KEY", "wrong", rgw_bucket),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", rgw_bucket),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with pytest.raises(TickFailed, match=said) as failed:
                sensor.tick()
            assert "\n" not in str(failed.value)
    storage.write(parse_location(f"s3://{rgw_bucket}/orders/two.manifest"), body)
    assert [name[:4] for name in sensor.tick().names] == ["two-"]


def test_a_store_that_hangs_fails_the_tick_by_our_own_words(instance, declaration, monkeypatch):
    """Before Dagster gives the tick up, which would say nothing of the store."""
    monkeypatch.setattr("batch_pipeline.storage.timeouts.IN_TICKS", Timeouts(read_seconds=0.2, attempts=2))
    trigger = ManifestTrigger("s3://flowers/orders/", state_path="s3://flowers/state/")
    sensor = Sensor(instance, replace(declaration, triggers=(trigger,)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name, value in (("ENDPOINT_URL_S3", endpoint), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        with pytest.raises(TickFailed, match=rf"bucket flowers.*can't be reached.*{endpoint}"):
            sensor.tick()
    assert sensor.cursor is None


def test_a_bucket_that_never_was_fails_the_tick(instance, declaration, rgw_bucket):
    trigger = ManifestTrigger(f"s3://{rgw_bucket}-no/orders/", state_path=f"s3://{rgw_bucket}/state/")
    sensor = Sensor(instance, replace(declaration, triggers=(trigger,)))
    with pytest.raises(TickFailed, match=f"{rgw_bucket}-no"):
        sensor.tick()
    assert sensor.cursor is None


def test_a_malformed_template_fails_the_tick_and_a_mended_one_recovers(instance, declaration, drop):
    broken = replace(declaration, template={**declaration.template, "input_mode": "what"})
    sensor = Sensor(instance, broken)
    drop("orders")
    with pytest.raises(TickFailed, match="input_mode") as failed:
        sensor.tick()
    assert "\n" not in str(failed.value)
    mended = Sensor(instance, declaration)
    mended.cursor = sensor.cursor
    assert [name[:7] for name in mended.tick().names] == ["orders-"]


def test_settings_that_are_wrong_fail_the_tick(sensor, drop, monkeypatch):
    monkeypatch.setenv("BATCH_PIPELINE_MAX_SERVICES", "many")
    with pytest.raises(TickFailed, match="BATCH_PIPELINE_MAX_SERVICES"):
        sensor.tick()


def test_a_cursor_of_something_else_is_told_and_nothing_runs_twice(sensor, drop):
    drop("orders")
    sensor.tick()
    for cursor in ("nonsense", "[]", '{"watch": "gone", "asked": []}', '{"asked": 3}', '{"watch": 3}'):
        sensor.cursor = cursor
        tick = sensor.tick()
        assert tick.runs == []
    sensor.cursor = "nonsense"
    assert "the cursor was lost" in sensor.tick().message


def test_the_cursor_stays_small(sensor, drop):
    for number in range(60):
        drop(f"orders-{number}")
    tick = sensor.evaluate()
    assert len(tick.runs) == 50
    assert len(tick.cursor) < 1000


def test_new_files_are_gathered_into_one_service(instance, place, declaration):
    trigger = NewFilesTrigger(f"file://{place.root}/in/", settle_seconds=0, pattern="*.csv")
    sensor = Sensor(instance, replace(declaration, triggers=(trigger,)), "new_files")
    names, config = [], {}
    for _ in range(4):
        tick = sensor.tick()
        names += tick.names
        config = tick.config() if tick.runs else config
    assert len(names) == 1
    manifest = Path(str(config["input_path"]).removeprefix("file://"))
    sources = [json.loads(line)["source"] for line in manifest.read_text().splitlines()]
    assert sorted(sources) == [f"file://{place.root}/in/{name}.csv" for name in "ab"]


def test_each_sensor_says_what_it_does_and_is_off(declaration):
    triggers = (
        *declaration.triggers,
        NewFilesTrigger("s3://bucket/new/", max_bytes=5_000_000),
        NotificationTrigger("https://sqs.eu-west-1.amazonaws.com/1/queue"),
        ManifestTrigger("s3://bucket/second/"),
    )
    ours = replace(declaration, triggers=triggers, owners=("team:ml",))
    sensors = {sensor.name: sensor for sensor in definitions_of(ours).get_repository_def().sensor_defs}
    expected = {"reviews_manifests", "reviews_new_files", "reviews_notifications", "reviews_manifests_2"}
    assert expected <= set(sensors)
    for name in expected:
        assert sensors[name].default_status == dg.DefaultSensorStatus.STOPPED
        assert "service of `reviews`" in sensors[name].description
        assert sensors[name].minimum_interval_seconds == 30
    assert "5,000,000 bytes" in sensors["reviews_new_files"].description


def test_triggers_in_another_order_and_outputs_elsewhere_take_nothing_again(instance, place, declaration, drop):
    """Nor what has no run any more, and no gathered file; the second of a kind is now the first."""
    inboxes = [f"file://{place.root}/{name}/" for name in ("in", "more")]
    (place.root / "more").mkdir()
    (place.root / "more/c.csv").write_text("1,2,3,4\n")
    triggers = [NewFilesTrigger(inbox, settle_seconds=0, pattern="*.csv") for inbox in inboxes]
    triggers += [*declaration.triggers, ManifestTrigger(f"file://{place.root}/others/")]
    drop("orders")

    def tick_all(triggers, output, cursors):
        found = replace(declaration, triggers=triggers, template={**declaration.template, "output_path": output})
        names = []
        for kind in ("new_files", "new_files_2", "manifests", "manifests_2"):
            sensor = Sensor(instance, found, kind)
            sensor.cursor = cursors.get(kind)
            for _ in range(2):
                names += sensor.tick().names
            cursors[kind] = sensor.cursor
        return names

    cursors = {}
    first = tick_all(triggers, f"file://{place.root}/out/{{name}}/", cursors)
    assert len(first) == 3
    for name in first:
        services.delete_service(instance, f"reviews/{name}")
    assert tick_all(triggers[::-1], f"file://{place.root}/out/{{name}}/", cursors) == []
    assert tick_all(triggers, f"file://{place.root}/moved/{{name}}/", cursors) == []


def test_a_tick_lists_the_folder_twice_at_most_however_many_are_refused(instance, place, drop, monkeypatch):
    monkeypatch.setattr("batch_pipeline.orchestration.sensors.MOST", 2)
    listed = []
    listing = Storage.list

    def counting(storage, folder, **options):
        listed.append(folder.uri)
        return listing(storage, folder, **options)

    monkeypatch.setattr(Storage, "list", counting)
    template = {"model": "{stem}", "output_path": f"file://{place.root}/out/{{name}}/"}
    trigger = ManifestTrigger(f"file://{place.root}/orders/")
    sensor = Sensor(instance, Declaration("reviews", template, triggers=(trigger,)))
    for number in range(20):
        drop(f"no model {number}")
    with pytest.raises(TickFailed, match=r"refused, to be tried again: .*and 17 more"):
        sensor.tick()
    assert listed.count(f"file://{place.root}/orders/") == 2
    drop("iris")
    assert [name[:5] for name in sensor.tick().names] == ["iris-"]


def test_a_file_of_a_long_odd_name_makes_one_service(instance, sensor, drop, place):
    """Dagster keeps run keys in an index, which takes 2,704 bytes at most."""
    folder = place.root / "orders" / ("\x01" * 250) / ("\x02" * 250)
    folder.mkdir(parents=True)
    drop("\x03\x04odd").rename(folder / "\x03\x04odd.manifest")
    tick = sensor.tick(launch=0)
    (run_key,) = tick.run_keys
    assert len(run_key) < 200
    assert run_key.startswith(f"{tick.names[0]} ")
    sensor.make(tick.runs[0])
    sensor.cursor = None
    assert sensor.tick().runs == []
