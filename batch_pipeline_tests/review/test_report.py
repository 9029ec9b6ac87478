"""The review of real services: what storage holds at their end, and what is kept of it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batch_pipeline import publishing, service
from batch_pipeline.checking import input_list
from batch_pipeline.errors import NodeFailed
from batch_pipeline.layout import OutputLayout
from batch_pipeline.node_specs import NodeSpec, NodeSpecs
from batch_pipeline.ownership import Owner
from batch_pipeline.review import examples
from batch_pipeline.review.distribution import distribution
from batch_pipeline.review.report import Review
from batch_pipeline.summary import Summary, load_summary
from batch_pipeline_tests.models.packages import FILE_REQUEST, api, config, schema
from batch_pipeline_tests.places import ROW, Place

LABELS = {"type": "object", "properties": {"label": {"type": "string"}, "probabilities": {"type": "array"}}}
IMAGES = config({"url": "/", "request": FILE_REQUEST}, model_algorithm="image_classification")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.at(tmp_path)


def rows(count: int, seed: int = 0) -> str:
    values = np.random.default_rng(seed).uniform(0, 8, (count, 4))
    return "".join(",".join(f"{value:.2f}" for value in row) + "\n" for row in values)


def reviewed(summary: Summary) -> Review:
    assert summary.review is not None
    return summary.review


def stored(place: Place) -> Summary:
    summary = load_summary(place.deployment.storage, OutputLayout(place.parameters().output))
    assert summary is not None
    return summary


def published(place: Place, response: object, **changes: object) -> Summary:
    """The service with what its API says of its answers."""
    parameters, owner = place.parameters(**changes), Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    for shard in service.plan(parameters, place.deployment, owner):
        service.infer(shard, place.deployment, owner)
    inputs, layout = input_list(parameters, place.deployment), OutputLayout(parameters.output)
    return publishing.publish(inputs, layout, parameters, lambda: None, response=response)  # type: ignore[arg-type]


def test_a_divided_csv(place):
    place.put("big.csv", rows(2000))
    place.put("small.csv", rows(10, seed=1) + "bad\n")
    review = reviewed(place.run(node_count=3, error_threshold=1))
    answers = [
        answer
        for name in ("big", "small")
        for answer in place.lines(f"infer-result/{name}.csv_result.txt")
        if "error" not in answer
    ]
    assert (review.answers, review.row_errors, review.not_json) == (2010, 1, 0)
    assert review.distribution == distribution(answers)
    assert list(review.distribution["leaves"]) == ["label", "probabilities[]"]
    assert (review.empty.count, review.conformity) == (0, None)


def test_zipmap_leaves_are_named_by_class(place):
    place.push("iris:2.0.0", model="logistic_zipmap.onnx")
    place.put("a.csv", rows(50))
    leaves = reviewed(place.run()).distribution["leaves"]
    assert list(leaves) == [
        "output_label",
        *(f"output_probability.{kind}" for kind in ("setosa", "versicolor", "virginica")),
    ]
    assert leaves["output_label"]["kind"] == "labels"


def test_a_regressor(place):
    place.push("width:1", config(api(schema("a", "b", "c"))), model="mlp_regressor.onnx")
    place.put("a.csv", "".join(line.rpartition(",")[0] + "\n" for line in rows(50).splitlines()))
    leaves = reviewed(place.run(model="width")).distribution["leaves"]
    assert [(path, leaf["kind"], leaf["count"]) for path, leaf in leaves.items()] == [("variable", "numbers", 50)]


def test_images(place):
    place.push("photos:1", IMAGES, model="images_nchw.onnx")
    for number in range(12):
        image = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), number * 20, dtype=np.uint8)).save(image, "PNG")
        place.put(f"{number}.png", image.getvalue())
    summary = place.run(model="photos")
    leaves = reviewed(summary).distribution["leaves"]
    answers = [place.lines(f"infer-result/{number}.png_result.txt")[0] for number in range(12)]
    assert leaves.keys() == {"predicted_label", "scores[0]"}
    assert leaves["scores[0]"]["quantiles"][-1] == pytest.approx(max(one["scores"][0][1] for one in answers), rel=1e-5)
    assert all(pair["source"].endswith(".png") and pair["answer"] in answers for pair in summary.sample)


def test_the_row_beside_an_answer_is_no_prediction(place):
    place.put("a.csv", rows(30))
    alone = reviewed(place.run()).distribution
    shutil.rmtree(place.output)
    assert reviewed(place.run("second", join_input=True)).distribution == alone


def test_examples_carry_the_request_that_was_answered(place):
    place.put("a.csv", rows(2000))
    summary = place.run(node_count=2)
    assert len(summary.sample) == examples.MOST
    answers = place.lines("infer-result/a.csv_result.txt")
    texts = rows(2000).splitlines()
    for pair in summary.sample:
        row = texts.index(",".join(f"{value:.2f}" for value in pair["request"].values()))
        assert pair["answer"] == answers[row]
    assert {texts.index(",".join(f"{v:.2f}" for v in pair["request"].values())) > 900 for pair in summary.sample} == {
        *(False, True)
    }


def test_examples_come_from_storage_where_no_node_left_any(place):
    place.put("a.csv")
    parameters, owner = place.parameters(), Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    (shard,) = service.plan(parameters, place.deployment, owner)
    service.infer(shard, place.deployment, owner)
    shutil.rmtree(place.output / "_batch/nodes")
    summary = service.publish(parameters, place.deployment, owner)
    assert [pair["source"] for pair in summary.sample] == [f"file://{place.root}/in/a.csv"]
    assert (reviewed(summary).balance, reviewed(summary).costs) == (None, ())


def test_answers_are_compared_with_the_response_schema(place):
    place.put("a.csv", rows(20))
    review = reviewed(published(place, LABELS))
    assert review.conformity is not None
    assert (review.conformity.checked, review.conformity.mismatches) == (20, 0)
    shutil.rmtree(place.output)
    wrong = {"type": "object", "properties": {"label": {"type": "integer"}}}
    review = reviewed(published(place, wrong))
    assert review.conformity is not None
    assert (review.conformity.mismatches, review.conformity.first[0]["path"]) == (20, "label")
    assert review.conformity.first[0]["line"] == 1


def test_an_empty_result_is_told_where_its_input_is_not_empty(place):
    header = "input_1,input_2,input_3,input_4\n"
    place.put("empty.csv", "")
    place.put("full.csv", header + ROW + "\n")
    place.put("only_header.csv", header)
    review = reviewed(place.run(csv={"header": True}))
    assert (review.empty.count, review.empty.first, review.answers) == (1, (3,), 1)


def test_every_node_says_what_it_did_and_what_it_cost(place):
    place.deployment.node_specs = NodeSpecs([NodeSpec("cpu-2u8g", "CPU", 2, 8, price_per_hour=3600)])
    for number in range(3):
        place.put(f"{number}.csv", rows(10 * (number + 1)))
    review = reviewed(place.run(node_count=3))
    assert [(one.node, one.inputs, one.rows) for one in review.nodes] == [(0, 1, 10), (1, 1, 20), (2, 1, 30)]
    assert [one.bytes_read for one in review.nodes] == [200, 400, 600]
    seconds = sum(one.seconds for one in review.nodes)
    (cost,) = review.costs
    assert cost.node_seconds == pytest.approx(seconds, abs=0.01)
    assert cost.cost == pytest.approx(cost.node_seconds)
    assert review.balance is not None
    assert 1 <= review.balance <= 3


def test_the_cost_of_an_earlier_attempt_counts_until_the_service_starts_over(place):
    place.put("a.csv")
    place.put("notes.txt", "hello")
    assert place.run().state == "failed"
    second = reviewed(place.run("second", error_threshold=1))
    assert len(list((place.output / "_batch/nodes").iterdir())) == 2
    assert (second.nodes[0].inputs, second.nodes[0].failed, second.nodes[0].rows) == (3, 2, 1)
    place.put("b.csv")
    third = reviewed(place.run("third", error_threshold=1, if_changed="overwrite"))
    assert (third.nodes[0].inputs, len(list((place.output / "_batch/nodes").iterdir()))) == (3, 1)


def test_a_node_that_fails_leaves_no_more_than_its_last_record(place):
    place.put("a.csv")
    parameters, owner = place.parameters(), Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    (shard,) = service.plan(parameters, place.deployment, owner)
    package = place.root / "models/iris/1.0.0/config.json"
    package.write_text(package.read_text() + " ")
    with pytest.raises(NodeFailed, match="replaced"):
        service.infer(shard, place.deployment, owner)
    assert not (place.output / "_batch/nodes").exists()


def test_what_is_kept_reads_back_and_names_no_source(place):
    place.put("secret-name.csv", rows(20) + "bad\n")
    place.put("empty-name.csv", "")
    summary = place.run(error_threshold=1)
    kept = stored(place)
    assert kept.review == summary.review
    assert (kept.sample, kept.first_errors, kept.result_manifests) == ((), (), summary.result_manifests)
    records = b"".join(path.read_bytes() for path in (place.output / "_batch").rglob("*.json"))
    assert b"-name.csv" not in records
    again = place.run("second", error_threshold=1)
    assert (again.already_finished, again.review) == (True, summary.review)


def test_a_summary_from_before_there_were_reviews_is_read(place):
    place.put("a.csv")
    place.run()
    file = place.output / "_batch/summary.json"
    record = json.loads(file.read_text())
    del record["review"]
    file.write_text(json.dumps(record))
    assert stored(place).review is None
    assert place.run("second").already_finished


def test_a_result_that_something_else_wrote_over_is_counted_not_swallowed(place):
    place.put("a.csv", rows(3))
    parameters, owner = place.parameters(), Owner("run", "flowers")
    service.ingest(parameters, place.deployment, owner)
    (shard,) = service.plan(parameters, place.deployment, owner)
    service.infer(shard, place.deployment, owner)
    result = place.output / "infer-result/a.csv_result.txt"
    result.write_bytes(b"x" * (result.stat().st_size - 1) + b"\n")
    shutil.rmtree(place.output / "_batch/nodes")
    summary = service.publish(parameters, place.deployment, owner)
    review = reviewed(summary)
    assert (review.answers, review.not_json, review.distribution["leaves"]) == (0, 1, {})
    assert summary.sample[0]["answer"].startswith("xxx")
