"""The survey of the input list: the same however it is read, and exactly what one line after the other would give."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_pipeline import manifest_columns, naming
from batch_pipeline.errors import InputMissing
from batch_pipeline.inputs import Input, InputList
from batch_pipeline.layout import result_digest, result_name
from batch_pipeline.locations import Location, ShareLink
from batch_pipeline.storage import Storage, disk
from batch_pipeline.survey import Survey, list_digest

SCHEMES = st.sampled_from(["s3://", "obs://", "S3://", "/", "//", "file:///", ""])
BUCKETS = st.sampled_from(["bucket", "b", "-no", "my.bucket_1", "B" * 254, "中文", ""])
NAMES = st.one_of(
    st.sampled_from(["a.csv", "A.CSV", "a.csv-0", "x/a.csv", "y/a.csv", "dir/", "", "/", "//x", "k" * 1100, "é.Csv"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
LINKS = st.sampled_from(
    [
        "https://b.obs.cn-north-4.myhuaweicloud.com/d/a.csv?AccessKeyId=A&Expires={}&Signature={}",
        "https://b.obs.cn-north-4.myhuaweicloud.com/d/a.csv",
        "https://h/a.csv?X-Amz-Signature={}",
        "http://h/a",
        "https://h/\ta?Signature=1",
    ]
)
SOURCES = st.one_of(
    st.builds("{}{}/{}".format, SCHEMES, BUCKETS, NAMES),
    st.builds(lambda link, number: link.format(number, number), LINKS, st.integers(1, 2)),
)
VALUES = st.sampled_from(
    [
        *("1e400", "-1e400", "[1e400]", '{"a": 1e400}', "1" * 400, "1" * 5000, "1e99999999999999999999", "NaN", "01"),
        *('"\\ud800"', '["\\ud800", 1e400]', "[" * 300 + "1e400" + "]" * 300, "-Infinity", "1e", "1e400 2"),
    ]
)
"""What readers of JSON differ in."""
PLAIN = SOURCES.map(lambda source: json.dumps({"source": source}, ensure_ascii=False))
LINES = st.one_of(
    PLAIN,
    PLAIN.map(lambda line: line.replace(": ", ":")),
    PLAIN.map(lambda line: f" \t{line}\x0b\r"),
    PLAIN.map(lambda line: line.replace('{"', '{ "').replace('"}', '" }')),
    SOURCES.map(lambda source: json.dumps({"source": source})),
    SOURCES.map(lambda source: json.dumps({"source ": source, "usage": "TRAIN"})),
    SOURCES.map(lambda source: '{"source": "s3://bucket/other", "source": ' + json.dumps(source) + "}"),
    SOURCES.map(lambda source: '{"source": ' + json.dumps(source).replace("/", "\\/") + "}"),
    SOURCES.map(lambda source: '{"source": "' + source + '"}'),
    st.builds(lambda value, source: f'{{"w": {value}, "source": {json.dumps(source)}}}', VALUES, SOURCES),
    VALUES.map(lambda value: f'{{"source": {value}}}'),
    st.sampled_from(["", " ", "\r", "nonsense", "[1]", "{}", '{"source": 5}', '{"source": null}', "{", '"', "\ufeff"]),
    st.text(max_size=6),
).map(lambda line: line.encode("utf-8", "surrogatepass"))
MANIFESTS = st.builds(
    lambda bom, lines, end: bom + b"\n".join(lines) + end,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.one_of(LINES, st.binary(max_size=4)), max_size=25),
    st.sampled_from([b"", b"\n", b"\n\n"]),
)


def input_list(folder: Path, data: bytes) -> InputList:
    path = folder / "list.manifest"
    path.write_bytes(data)
    return InputList(Storage(allow_local=True), Location("", str(path)[1:], "file"), allow_local=True)


def expected(inputs: InputList) -> tuple[list[dict[str, object]], str]:
    """The table's rows and the digest, one line after the other."""
    content = hashlib.sha256()
    rows: list[dict[str, object]] = []
    first: dict[bytes, dict[str, object]] = {}
    taken: set[bytes] = set()
    for item in inputs.read():
        content.update(b"%d\0%d\0%s" % (item.line, len(item.content), item.content))
        row = {"line": item.line, "digest": item.digest, "bad": item.error is not None}
        row |= {"csv": item.name.lower().endswith(".csv"), "duplicate_of": None, "suffix": "", "result": b""}
        if item.error is None:
            key = (item.source.url if isinstance(item.source, ShareLink) else item.source.uri).encode()
            if key in first:
                row |= {name: first[key][name] for name in ("suffix", "result")}
                row["duplicate_of"] = first[key]["line"]
            else:
                row |= named(item, taken)
                first[key] = row
        rows.append(row)
    return rows, content.hexdigest()


def named(item: Input, taken: set[bytes]) -> dict[str, object]:
    """The first name that is free."""
    source = hashlib.sha256(orjson.loads(item.token).encode()).hexdigest()
    suffix, length = "", 0
    while (result := result_digest(result_name(item.name, suffix))) in taken:
        length += naming.HEX
        suffix = "-" + source[:length]
    taken.add(result)
    return {"suffix": suffix, "result": result}


def found(inputs: InputList) -> tuple[list[dict[str, object]], str, Survey]:
    with Survey(inputs) as survey:
        table = pl.concat(list(survey.tables()))
        assert table["size"].null_count() == table.height
        return table.drop("size", "etag").to_dicts(), survey.digest, survey


@settings(deadline=None)
@given(MANIFESTS, st.sampled_from([1, 100, 10**6]), st.sampled_from([1, naming.HEX]))
def test_lines_read_many_at_once_are_as_one_by_one(tmp_path_factory, data, block, digits):
    inputs = input_list(tmp_path_factory.mktemp("list"), data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(naming, "PARTS", 3)
        patch.setattr(naming, "HEX", digits)  # with one digit, suffixes meet each other too
        patch.setattr("batch_pipeline.inputs.blocks", lambda chunks: manifest_columns.blocks(chunks, block))
        rows, digest = expected(inputs)
        if not rows:
            with pytest.raises(InputMissing, match="lists no input"):
                found(inputs)
            return
        table, its_digest, survey = found(inputs)
    assert [{name: row[name] for name in rows[0]} for row in table] == rows
    assert (its_digest, list_digest(inputs)) == (digest, digest)
    assert survey.inputs == len(rows)
    assert survey.bad_lines == sum(row["bad"] is True for row in rows)
    assert survey.repeated == sum(row["duplicate_of"] is not None for row in rows)
    offsets = {item.line: item.offset for item in inputs.read()}
    marks = dict(survey.marks.iter_rows())
    assert marks.items() <= offsets.items()
    assert rows[0]["line"] in marks


@pytest.mark.parametrize("count", [40, 400])
def test_sources_with_few_names_among_them_each_get_their_own(tmp_path, monkeypatch, count):
    monkeypatch.setattr(naming, "HEX", 1)
    sources = [f"s3://bucket/{number}/{'ab'[number % 2]}.csv" for number in range(count)]
    inputs = input_list(tmp_path, b"".join(b'{"source": "%s"}\n' % source.encode() for source in sources))
    rows, _ = expected(inputs)
    table, _, _ = found(inputs)
    assert [row["result"] for row in table] == [row["result"] for row in rows]
    assert len({row["result"] for row in table}) == count


def test_a_name_that_looks_like_anothers_with_its_suffix_goes_to_the_first_in_the_list(tmp_path):
    suffix = hashlib.sha256(b"s3://bucket/2/a").hexdigest()[:8]
    for order in ([0, 1, 2], [0, 2, 1], [2, 0, 1]):
        sources = ["s3://bucket/1/a", "s3://bucket/2/a", f"s3://bucket/3/a-{suffix}"]
        lines = [b'{"source": "%s"}\n' % sources[place].encode() for place in order]
        inputs = input_list(tmp_path, b"".join(lines))
        rows, _ = expected(inputs)
        assert [row["suffix"] for row in found(inputs)[0]] == [row["suffix"] for row in rows]


@pytest.mark.parametrize("first", [0, 9])
def test_names_chosen_to_leave_a_source_none_leave_it_one(tmp_path, first):
    """Whoever writes the list can work out every name that a source of it would have."""
    digits = hashlib.sha256(b"s3://bucket/2/a").hexdigest()
    names = ["a", *(f"a-{digits[:length]}" for length in range(8, 65, 8))]
    sources = [f"s3://bucket/1/{name}" for name in names]
    sources.insert(first, "s3://bucket/2/a")
    inputs = input_list(tmp_path, b"".join(b'{"source": "%s"}\n' % source.encode() for source in sources))
    table, _, _ = found(inputs)
    assert len({row["result"] for row in table}) == len(sources)
    assert table == found(inputs)[0]


def test_memory_does_not_grow_with_the_list(tmp_path):
    def most(lines: int) -> int:
        inputs = input_list(tmp_path, b"".join(b'{"source": "s3://bucket/%09d.csv"}\n' % line for line in range(lines)))
        tracemalloc.start()
        try:
            with Survey(inputs) as survey:
                for _ in survey.tables():
                    pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batch_pipeline.inputs.blocks", lambda chunks: manifest_columns.blocks(chunks, 256 * 1024))
        patch.setattr(disk, "CHUNK_BYTES", 256 * 1024)
        few, many = most(30_000), most(90_000)
    assert many - few < 60_000 * 8
