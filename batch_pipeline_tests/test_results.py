from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import batch_pipeline
from batch_pipeline.errors import ObjectNotFound, Refused, StorageFailed
from batch_pipeline.locations import Location
from batch_pipeline.results import export_results, load_results, result_rows
from batch_pipeline.storage import Storage

LINK = "https://other.obs.cn-north-1.myhuaweicloud.com/2.csv?AccessKeyId=k&Expires=1&Signature=hidden"
ROW_ERROR = {"error": {"code": "bad_number", "message": "column 1"}}


def lines(records: Iterable[Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def put(output: Location, relative: str, data: bytes) -> str:
    path = Path("/" + output.child(relative).key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return output.child(relative).uri


@pytest.fixture
def storage() -> Storage:
    return Storage(allow_local=True)


@pytest.fixture
def output(tmp_path: Path) -> Location:
    """The results of two nodes: two CSVs with a bad row, and a file that has no result."""
    folder = Location("", f"{tmp_path}/out/".removeprefix("/"), "file")
    first = put(
        folder, "infer-result/a b/1.csv_result.txt", lines([{"label": 1, "p": [0.5, 0.5]}, ROW_ERROR, {"label": 2}])
    )
    second = put(folder, "infer-result/2.csv_result.txt", lines([{"label": 3, "p": [1.0]}]))
    put(folder, "infer-result-0.manifest", lines([{"source": "s3://bbb/a b/1.csv", "inference-loc": first}]))
    put(folder, "infer-result-1.manifest", lines([{"source": LINK, "inference-loc": second}]))
    failed = {"source": "s3://bbb/3.csv", "error": {"code": "not_found", "message": "gone"}}
    partly = {"source": "s3://bbb/a b/1.csv", "error": {"code": "rows", "message": "1 row"}, "failed_rows": 1}
    put(folder, "infer-error-0.manifest", lines([partly, failed, {**failed, "source": None, "line": 7}]))
    return folder


def test_every_row_of_every_result_is_a_row_of_the_table(storage: Storage, output: Location) -> None:
    frame = load_results(output, storage, node_count=2)
    assert list(frame.columns) == ["source", "row", "label", "p", "error"]
    assert frame["source"].tolist()[:4] == ["s3://bbb/a b/1.csv"] * 3 + ["s3://bbb/3.csv"]
    assert frame["row"].tolist() == [0, 1, 2, pd.NA, pd.NA, 0]
    assert frame["label"].tolist() == [1, pd.NA, 2, pd.NA, pd.NA, 3]
    assert frame["label"].dtype == "Int64"
    assert list(frame["p"][0]) == [0.5, 0.5]
    errors = frame["error"].tolist()
    assert errors[1] == "bad_number: column 1"
    assert errors[3:5] == ["not_found: gone"] * 2
    assert pd.isna([errors[0], errors[2], errors[5]]).all()


def test_a_share_link_stands_without_its_signature(storage: Storage, output: Location) -> None:
    (source,) = load_results(output, storage)["source"].tolist()[-1:]
    assert source == "https://other.obs.cn-north-1.myhuaweicloud.com/2.csv"


def test_no_more_is_read_than_asked_for(storage: Storage, output: Location) -> None:
    put(output, "infer-result/2.csv_result.txt", b"not JSON")
    assert len(load_results(output, storage, node_count=2, head=2)) == 2
    next(iter(result_rows(output, storage, node_count=2)))


@pytest.mark.parametrize("node_count", [2, None])
def test_results_that_are_not_all_there_are_refused(tmp_path: Path, storage: Storage, node_count: int | None) -> None:
    folder = Location("", f"{tmp_path}/none/".removeprefix("/"), "file")
    with pytest.raises(Refused, match=r"infer-result-0\.manifest does not exist: the service has not finished"):
        load_results(folder, storage, node_count=node_count)
    put(folder, "infer-result-0.manifest", b"")
    if node_count is None:
        assert load_results(folder, storage).empty
    else:
        with pytest.raises(Refused, match=r"infer-result-1\.manifest does not exist"):
            load_results(folder, storage, node_count=node_count)


def test_parquet_holds_the_same_table(tmp_path: Path, storage: Storage, output: Location) -> None:
    target = tmp_path / "x.parquet"
    assert export_results(output, storage, target, node_count=2) == 6
    read, loaded = pd.read_parquet(target), load_results(output, storage, node_count=2)
    assert list(read.columns) == list(loaded.columns)
    assert read["label"].dropna().tolist() == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x.parquet"]


def test_whole_numbers_stay_numbers_whatever_their_size(tmp_path: Path, storage: Storage) -> None:
    folder = Location("", f"{tmp_path}/out/".removeprefix("/"), "file")
    answers = [{"n": 1, "t": 1}, {"n": 2**63, "t": "x"}, {"m": 2**63}]
    result = put(folder, "infer-result/1.csv_result.txt", lines(answers))
    put(folder, "infer-result-0.manifest", lines([{"source": "s3://bbb/1.csv", "inference-loc": result}]))
    frame = load_results(folder, storage)
    assert [None if pd.isna(one) else one for one in frame["n"]] == [1, 2**63, None]
    assert [None if pd.isna(one) else one for one in frame["m"]] == [None, None, 2**63]
    assert frame["t"].tolist()[:2] == ["1", "x"]
    assert export_results(folder, storage, tmp_path / "x.csv") == 3
    assert f",{2**63}," in (tmp_path / "x.csv").read_text()


def test_csv_holds_lists_as_json(tmp_path: Path, storage: Storage, output: Location) -> None:
    assert export_results(output, storage, tmp_path / "x.csv", head=2) == 2
    assert (tmp_path / "x.csv").read_text() == (
        'source,row,label,p,error\ns3://bbb/a b/1.csv,0,1,"[0.5, 0.5]",\ns3://bbb/a b/1.csv,1,,,bad_number: column 1\n'
    )


def test_many_batches_are_one_file(tmp_path: Path, storage: Storage) -> None:
    folder = Location("", f"{tmp_path}/out/".removeprefix("/"), "file")
    answers = [{"n": number if number < 60_000 else number + 0.5} for number in range(120_000)]
    result = put(folder, "infer-result/1.csv_result.txt", lines(answers))
    put(folder, "infer-result-0.manifest", lines([{"source": "s3://bbb/1.csv", "inference-loc": result}]))
    assert export_results(folder, storage, tmp_path / "x.parquet") == 120_000
    assert pd.read_parquet(tmp_path / "x.parquet")["n"].tolist() == [answer["n"] for answer in answers]


def test_many_small_results_keep_their_order(tmp_path: Path, storage: Storage) -> None:
    folder = Location("", f"{tmp_path}/out/".removeprefix("/"), "file")
    records = []
    for number in range(100):
        result = put(folder, f"infer-result/{number}.jpg_result.txt", lines([{"n": number}]))
        records.append({"source": f"s3://bbb/{number}.jpg", "inference-loc": result})
    put(folder, "infer-result-0.manifest", lines(records))
    assert load_results(folder, storage)["n"].tolist() == list(range(100))
    assert load_results(folder, storage, head=3)["n"].tolist() == [0, 1, 2]


def test_a_result_of_something_else_is_named(storage: Storage, output: Location) -> None:
    put(output, "infer-result/2.csv_result.txt", b'{"label": 1}\nno\n')
    with pytest.raises(StorageFailed, match=r"2\.csv_result\.txt, line 2: not JSON"):
        load_results(output, storage)


def test_a_result_that_is_gone_is_named(tmp_path: Path, storage: Storage, output: Location) -> None:
    (tmp_path / "out/infer-result/2.csv_result.txt").unlink()
    with pytest.raises(ObjectNotFound, match=r"2\.csv_result\.txt"):
        load_results(output, storage)


@pytest.mark.parametrize("name", ["x.xlsx", "x", "nothing/x.csv"])
def test_an_impossible_file_is_refused(tmp_path: Path, storage: Storage, output: Location, name: str) -> None:
    with pytest.raises(Refused, match="cannot write"):
        export_results(output, storage, tmp_path / name)


def test_no_results_make_an_empty_table(tmp_path: Path, storage: Storage) -> None:
    folder = Location("", f"{tmp_path}/out/".removeprefix("/"), "file")
    put(folder, "infer-result-0.manifest", b"")
    assert export_results(folder, storage, tmp_path / "x.csv") == 0
    assert (tmp_path / "x.csv").read_text() == "source,row,error\n"


def test_an_output_folder_will_do_for_a_name(output: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_PIPELINE_ALLOW_LOCAL_FILES", "true")
    assert len(batch_pipeline.load_results(output.uri, head=1)) == 1


@pytest.mark.parametrize(
    "elsewhere",
    [
        "s3://other/infer-result/2.csv_result.txt",
        "file:///etc/hostname",
        "{output}2.csv_result.txt",
        "{output}infer-result-1.manifest",
        "{output}infer-resul/t",
        "https://host/x?Signature=SECRET",
        "2.csv_result.txt",
    ],
)
def test_a_result_outside_of_the_output_folder_is_not_read(storage: Storage, output: Location, elsewhere: str) -> None:
    record = {"source": "s3://bbb/2.csv", "inference-loc": elsewhere.format(output=output.uri)}
    put(output, "infer-result-1.manifest", lines([record]))
    with pytest.raises(Refused, match=r"infer-result-1\.manifest, line 1: names a result outside of file:") as refused:
        load_results(output, storage)
    assert "SECRET" not in refused.value.message


@pytest.mark.parametrize("way", ["..", "dots", "link"])
def test_no_way_leads_out_of_the_folder_of_results(storage: Storage, output: Location, way: str) -> None:
    secret = Path("/" + output.key).parent / "secret"
    secret.write_text('{"secret": 1}\n')
    Path("/" + output.child("infer-result/link").key).symlink_to(secret)
    name = {"..": "../../secret", "dots": "./../../secret", "link": "link"}[way]
    record = {"source": "s3://bbb/2.csv", "inference-loc": f"{output.uri}infer-result/{name}"}
    put(output, "infer-result-1.manifest", lines([record]))
    with pytest.raises(StorageFailed, match=r"can't be a local file|leads through a link out of the folder"):
        load_results(output, storage)


@pytest.mark.parametrize(
    ("name", "line", "what"),
    [
        ("infer-result-1.manifest", b"[]", "no line of a result manifest"),
        ("infer-result-1.manifest", b'{"source": "s3://bbb/k"}', "no line of a result manifest"),
        ("infer-result-1.manifest", b'{"source": "s3://bbb/k", "inference-loc": 1}', "no line of a result manifest"),
        ("infer-error-1.manifest", b"1", "no line of an error manifest"),
        ("infer-error-1.manifest", b'{"source": null, "error": "x"}', "no line of an error manifest"),
        ("infer-result/2.csv_result.txt", b"[" * 241 + b"]" * 241, r"nested too deeply \(more than 240 levels\)"),
        ("infer-result/2.csv_result.txt", b'{"a":' * 1500 + b"1" + b"}" * 1500, "not JSON"),
        ("infer-result-1.manifest", b'{"a":' * 600 + b"1" + b"}" * 600, "nested too deeply"),
    ],
)
def test_what_something_else_has_written_is_named(
    storage: Storage, output: Location, name: str, line: bytes, what: str
) -> None:
    put(output, name, line + b"\n")
    with pytest.raises(StorageFailed, match=rf"{name}, line 1: {what}"):
        load_results(output, storage)


def test_answers_as_deep_as_can_be_written_are_read(tmp_path: Path, storage: Storage, output: Location) -> None:
    put(
        output,
        "infer-result/2.csv_result.txt",
        b'{"a":' * 240 + b"1" + b"}" * 240 + b"\n" + b"[" * 240 + b"7" + b"]" * 240,
    )
    assert export_results(output, storage, tmp_path / "x.csv") == 7
    assert export_results(output, storage, tmp_path / "x.parquet") == 7
    deepest = pd.read_parquet(tmp_path / "x.parquet")["output"].dropna().tolist()
    assert deepest == ["[" * 240 + "7" + "]" * 240]
