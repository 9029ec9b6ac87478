"""Whatever bytes a stranger sends are read, or refused by an error of our own: in time, and in bounded memory."""

from __future__ import annotations

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batch_pipeline import share_links
from batch_pipeline.cli.files import read_body, read_mapping
from batch_pipeline.components.folder import load_folder
from batch_pipeline.deployment import Deployment
from batch_pipeline.documents import is_too_deep, parse_json
from batch_pipeline.errors import (
    BatchPipelineError,
    InputFailed,
    InvalidLocation,
    InvalidParameters,
    InvalidSettings,
    ModelRefused,
    Refused,
    StorageFailed,
)
from batch_pipeline.layout import OutputLayout
from batch_pipeline.locations import Location, ShareLink, parse_source
from batch_pipeline.manifest import content_identity, error_line, parse_line, result_line
from batch_pipeline.manifest_columns import blocks, columns
from batch_pipeline.modelarts import read_body as read_modelarts
from batch_pipeline.models import labels, mapping
from batch_pipeline.models.json_files import read_json
from batch_pipeline.models.package import read_apis, read_config
from batch_pipeline.models.preprocessing import FILE_NAME, ImagePreprocessing
from batch_pipeline.node import csv_blocks, csv_rows, images
from batch_pipeline.node.csv_fields import RowError
from batch_pipeline.node_specs import load_node_specs
from batch_pipeline.output_folder import inspect, load_record
from batch_pipeline.ownership import check_free
from batch_pipeline.results import export_results
from batch_pipeline.service import delete_results
from batch_pipeline.settings import Settings
from batch_pipeline.share_links import ShareLinkReader
from batch_pipeline.storage import Storage
from batch_pipeline.triggers.events import NoNotification, Notification, parse_body
from batch_pipeline_tests.components.test_folder import REVIEWS
from batch_pipeline_tests.faults.fuzzing import bounded_memory, damaged, ends, examples
from batch_pipeline_tests.faults.test_images_too_large import small
from batch_pipeline_tests.models.packages import FILE_REQUEST, api, config, schema
from batch_pipeline_tests.node.test_csv_rows import KINDS, tensors
from batch_pipeline_tests.node.test_images import image_input
from batch_pipeline_tests.test_modelarts import body
from batch_pipeline_tests.triggers.test_events import bridged, in_envelope, recorded

LINK = "https://b.obs.cn-north-1.myhuaweicloud.com/a%20b/%E7%8C%AB.jpg?AccessKeyId=A&Expires=1700000000&Signature=S%3D"
PRESIGNED = "https://b.s3.amazonaws.com/k?X-Amz-Date=20240102T030405Z&X-Amz-Expires=3600&X-Amz-Signature=a"
JSON_WORDS = rb'" \ \u0000 \ud800 { } [ ] : , null true "source"'.split()
MANIFEST = [
    b'{"source": "s3://bucket/a/1.jpg"}',
    b'{"source": "s3:\\/\\/bucket\\/\\u4e2d.csv", "owner": {"name": ["x", 1]}}',
    b'{"source ": "obs://bucket/k", "annotation": [{"name": "rose", "loc": "s3://bucket/x"}], "usage": "TRAIN"}',
    json.dumps({"source": LINK, "id": 7}).encode(),
    json.dumps({"source": PRESIGNED}).encode(),
    b'{"source": "/bucket/k"}',
    b'{"source": "https://b.obs.cn-north-1.myhuaweicloud.com/dir/1.csv"}',
    b'{"source": "file:///tmp/x"}',
]


# --- manifests, links, notifications -------------------------------------------------------------------------


@examples(300)
@given(damaged(MANIFEST, [*JSON_WORDS, b"s3://", b"?Signature=", b"%", b"@", b"..", b"\0"]))
def test_lines_of_a_manifest(line: bytes) -> None:
    with ends():
        line = line.replace(b"\n", b" ")
        parsed = parse_line(line, allow_local=True)
        assert (parsed.source is None) == (parsed.error is not None)
        assert json.loads(error_line(parsed.token, "code", "why"))["error"]["code"] == "code"
        if parsed.source is not None:
            assert json.loads(result_line(parsed.token, Location("out", "x")))["source"]
            content_identity(line, parsed)


@examples(80)
@given(st.lists(damaged(MANIFEST, JSON_WORDS), max_size=4).map(b"\n".join), st.sampled_from([1, 50, 10**6]))
def test_a_manifest(data: bytes, size: int) -> None:
    """Every line that is not blank is one of the frame, good or bad."""
    with ends():
        found = [columns(block, offset=1, line=0, allow_local=True) for block in blocks([data], size)]
        lines = [line.strip() for line in data.split(b"\n") if line.strip()]
        assert sum(len(frame) for frame in found) == len(lines)
        bad = [bad for frame in found for bad in frame["bad"].to_list()]
        assert bad == [parse_line(line, allow_local=True).source is None for line in lines]


URLS = [LINK.encode(), PRESIGNED.encode(), b"http://[::1%25eth0]:80/k?Signature=x", b"https://h:65536/k?Signature=x"]
URL_WORDS = b"% %00 @ : [ ] # ? & // .. \xc2\xa0 Expires= x-amz-date=".split()


@examples(300)
@given(damaged(URLS, URL_WORDS))
def test_share_links(data: bytes) -> None:
    """Read or refused; and one that is read goes to no host that is not listed."""
    text = data.decode("utf-8", "surrogateescape")
    with ends():
        try:
            source = parse_source(text)
        except InvalidLocation as refused:
            assert "Signature=S%3D" not in refused.message  # noqa: PT017
            return
        if isinstance(source, ShareLink):
            assert source.name
            assert source.identity
            assert source.expires is None or source.expires.tzinfo
            with pytest.raises(InputFailed):
                ShareLinkReader(("other.example.com",)).head(source)


HTTP = [
    b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 10\r\nETag: "a"\r\n\r\n0123456789',
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
    b"HTTP/1.1 206 OK\r\nContent-Encoding: gzip\r\nContent-Range: bytes 0-9/10\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nexpired",
    b"HTTP/1.1 416 Range\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Gone\r\n\r\n",
]
HTTP_WORDS = [
    b"\r\n",
    b"\n",
    b" ",
    b"-",
    b"Content-Length: 1\r\n",
    b"Content-Range: bytes 5-9/10\r\n",
    b"ETag: \xff\r\n",
]


class RawHost:
    """Answers whatever it is asked with the same bytes, and hangs up."""

    def __init__(self) -> None:
        self.answer = b""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self._server.accept()
                with connected, suppress(OSError):
                    connected.settimeout(5)
                    asked = b""
                    while not asked.endswith(b"\r\n\r\n"):
                        asked += connected.recv(65536) or b"\r\n\r\n"
                    connected.sendall(self.answer)
                    connected.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._server.close()


@pytest.fixture(scope="module")
def host() -> Iterator[RawHost]:
    host = RawHost()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(share_links, "_FIRST_WAIT", 0.0)
        yield host
    host.close()


@examples(150, share=0.3)
@given(answer=damaged(HTTP, HTTP_WORDS))
def test_answers_of_the_host_of_a_link(host: RawHost, answer: bytes) -> None:
    """No more comes out than was asked for, whatever the host says."""
    host.answer = answer
    reader = ShareLinkReader((), host.url, answer_seconds=5)
    with ends(120), suppress(InputFailed), reader.open(ShareLink(f"{host.url}/x?Signature=s"), 0, 10) as stream:
        assert len(stream.read()) <= 10


EVENTS = [
    json.dumps({"Records": [recorded(), recorded("ObjectRemoved:Delete")]}).encode(),
    json.dumps({"Records": [recorded(inside="obs")]}).encode(),
    json.dumps(bridged()).encode(),
    json.dumps(in_envelope({"Records": [recorded()]})).encode(),
    json.dumps(in_envelope(bridged())).encode(),
    b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}',
]


@examples(300)
@given(damaged(EVENTS, [*JSON_WORDS, b'"key":', b"%", b"%ff", b'"Records"', b'"Message"']))
def test_notifications(data: bytes) -> None:
    with ends():
        found = parse_body(data.decode("utf-8", "surrogateescape"))
        if isinstance(found, Notification):
            assert all(event.location.bucket and event.location.key for event in found.events)
        else:
            assert isinstance(found, NoNotification)
            assert found.reason


# --- CSV -----------------------------------------------------------------------------------------------------

CSV = [
    b"1,2,3\n4,5,6\n-7.5,8e3,0\n",
    b"\xef\xbb\xbf5.1,3.5,1.4\r\n4.9,3.0,1.4\r\n",
    b'"a ""b""",1,true\n"x,y",2,false\n\n',
    b'"two\nlines",1,2\n',
    b"a,b,c\n" + b"1,2,3\n" * 500,
    b"9223372036854775807,1e308,1e-400\n18446744073709551616,nan,inf\n",
    "猫,1,2\n".encode() * 3,
]
CSV_WORDS = [b"\n", b"\r\n", b"\r", b" ", *b', " "" \0 \xff 1e400 - nan true \xef\xbb\xbf'.split()]


@examples(100)
@given(
    damaged(CSV, CSV_WORDS),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([7, 100, 10**6]),
)
def test_rows_of_a_csv(data: bytes, kinds: list[Any], multiline: bool, nan: bool, size: int) -> None:
    """Every reader has the same rows, the same values and the same errors, block by block."""
    import numpy as np

    wanted = tensors(*kinds, nan=nan)
    with ends():
        for block in csv_blocks.blocks(csv_blocks.without_bom([data]), multiline=multiline, block_bytes=size):
            rows = csv_rows.raw_rows(block, multiline=multiline)
            read = []
            for small_block in (0, 10**9):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(csv_rows, "SMALL_BLOCK", small_block)
                    read.append(csv_rows.parse(block, wanted, multiline=multiline))
            quick, exact = read
            assert quick.count == exact.count == len(rows)
            assert all(isinstance(error, RowError) for error in quick.errors.values())
            assert quick.errors == exact.errors
            for name, values in exact.inputs.items():
                assert quick.inputs[name].dtype == values.dtype
                np.testing.assert_array_equal(quick.inputs[name], values)


@examples(150)
@given(damaged(CSV, CSV_WORDS), st.lists(st.integers(0, 200), max_size=4), st.sampled_from([1, 7, 10**6]))
def test_parts_of_a_csv(data: bytes, cuts: list[int], chunk: int) -> None:
    with ends():
        edges: list[int | None] = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), None]
        parts = b""
        for start, end in pairwise(edges):
            begin = max(0, (start or 0) - 1)
            chunks = [data[at : at + chunk] for at in range(begin, len(data), chunk)]
            parts += b"".join(csv_blocks.part_of(chunks, start or 0, end))
        assert parts == data


# --- model packages ------------------------------------------------------------------------------------------

NUMBERED = schema("a", "b", n="integer", t="string", f="boolean")
CONFIGS = [
    json.dumps(config(api(NUMBERED, schema("y")))).encode(),
    json.dumps(
        config({"request": FILE_REQUEST, "url": "/i"}, onnx={"labels": ["a", "b"], "inputs": {"x": "a"}})
    ).encode(),
    json.dumps(
        config(
            api({"type": "array", "items": [{"type": "array", "items": NUMBERED}]}, inputs={"x": ["a", "b"]}),
            metrics={"f1": 0.5},
            id2label={"0": "rose", "1": "tulip"},
            source_type="auto",
        ),
        indent=1,
    ).encode(),
]
CONFIG_WORDS = [*JSON_WORDS, *b'"type" "items" "properties" "object" "array" "apis" "onnx" \xff'.split()]


@examples(250)
@given(damaged(CONFIGS, CONFIG_WORDS))
def test_config_of_a_package(content: bytes) -> None:
    with ends():
        found, problems = read_config(content)
        assert found is not None or problems
        if found is None:
            return
        for one in read_apis(found)[0]:
            with suppress(ModelRefused):
                rule = mapping.generate(one.request_schema or {})
                again = mapping.parse(rule, one.request_schema or {}, header=False).rule()
                assert mapping.parse(again, one.request_schema or {}, header=False).rule() == again
        for given_labels in (found.onnx.labels, (found.model_extra or {}).get("id2label")):
            with suppress(ModelRefused):
                assert all(isinstance(label, str) for label in labels.parse(given_labels, "labels"))


STEPS = [
    b'{"do_resize": true, "size": {"height": 8, "width": 8}, "resample": 3, "do_rescale": true, "rescale_factor": 0.1}',
    b'{"size": {"shortest_edge": 16}, "do_center_crop": true, "crop_size": {"height": 8, "width": 8}, "crop_pct": 0.9}',
    b'{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "do_normalize": true, "do_convert_rgb": false}',
    b'{"size": 8, "crop_size": [8, 8], "image_mean": 0.5, "image_std": 0.5, "id2label": {"0": "a"}}',
]
PICTURE = bytes(small("PNG"))


@examples(200)
@given(damaged(STEPS, [*JSON_WORDS, b'"longest_edge": 1, ', b"0", b"-"]))
def test_preprocessing_of_a_package(content: bytes) -> None:
    with ends(), bounded_memory(1500), suppress(ModelRefused, InputFailed):
        found = read_json(content, FILE_NAME)
        if isinstance(found, dict):
            with suppress(ModelRefused):
                labels.parse(found.get("id2label"), "id2label")
            images.file_tensor(PICTURE, image_input(None, None), ImagePreprocessing.parse(found))


# --- images --------------------------------------------------------------------------------------------------


def drawn(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    picture = Image.effect_noise((24, 17), 60).convert(mode)
    picture.save(file, kind, **options)
    return file.getvalue()


def with_orientation() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return drawn("JPEG", exif=exif.tobytes())


PICTURES = {
    "JPEG": [
        drawn("JPEG"),
        drawn("JPEG", "L"),
        drawn("JPEG", "CMYK"),
        drawn("JPEG", progressive=True),
        with_orientation(),
    ],
    "PNG": [drawn("PNG"), drawn("PNG", "RGBA"), drawn("PNG", "1"), drawn("PNG", "P")],
    "GIF": [drawn("GIF"), drawn("GIF", "P", save_all=True, append_images=[Image.new("P", (24, 17))])],
    "BMP": [drawn("BMP"), drawn("BMP", "L"), drawn("BMP", "RGBA")],
    "TIFF": [
        drawn("TIFF"),
        *(drawn("TIFF", compression=one) for one in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
    ],
    "WEBP": [drawn("WEBP"), drawn("WEBP", "RGBA", lossless=True)],
    "PPM": [
        drawn("PPM"),
        drawn("PPM", "L"),
        b"P3 2 1 255 1 2 3 4 5 6",
        b"Pf\n2 2\n-1.0\n" + bytes(16),
        b"P1 2 2 1 0 0 1",
    ],
    "JPEG2000": [drawn("JPEG2000")],
    "AVIF": [drawn("AVIF")],
}
MARKERS = b"\xff\xd8 \xff\xe1\0\x10Exif\0\0 II*\0 MM\0* RIFF VP8X IDAT \xff\xc2 \x2c jp2c".split()


@pytest.mark.parametrize("kind", PICTURES)
def test_images(kind: str) -> None:
    @examples(100, share=0.3)
    @given(damaged(PICTURES[kind], MARKERS), st.sampled_from([(3, "NCHW"), (1, "NHWC"), (4, "NHWC")]))
    def decoded(data: bytes, wanted: tuple[int, str]) -> None:
        channels, layout = wanted
        source = image_input(8, 8, channels=channels, layout=layout)
        with ends():
            try:
                tensor = images.file_tensor(data, source, ImagePreprocessing.plain())
            except InputFailed as error:
                assert error.code in ("not_an_image", "too_large", "wrong_shape")  # noqa: PT017
            else:
                assert tensor.shape[0] == 1

    with pytest.MonkeyPatch.context() as patch, bounded_memory(1500):
        patch.setattr(images, "MOST_PIXELS", 2**22)
        decoded()


# --- YAML and JSON of people ---------------------------------------------------------------------------------

YAML = [
    b"model: iris:1.0\ninput_path: s3://bucket/in/\noutput_path: s3://bucket/out/\ncsv: {header: true}\n",
    b"a: &x {b: 1, c: [1, 2]}\nd: *x\ne: {<<: *x, f: 2024-01-02}\n",
    b"node_specs:\n- {id: big, cpu: 8, memory_gib: 32, tags: {a: [1]}}\n- id: b2\n  cpu: 1\n  memory_gib: 0.5\n",
    b'{"model": "iris", "mapping": {"type": "object", "properties": {"a": {"type": "number", "index": 0}}}}',
    b"a: |\n  text\n  more\nb: >-\n  folded\nc: 'it''s'\nd: \"\\u4e2d\\x41\"\n---\ne: 1\n...\n",
]
YAML_WORDS = [
    *(
        b"%s " % word
        for word in b"&a <<: ? : - !!int !!float !!bool !!timestamp !!binary !!set !!omap !!pairs !!null !x".split()
    ),
    *(b"<<: [*x, *x, *x]", b"!!python/object/apply:os.system ", b"%YAML 1.1\n", b"---\n", b"\n", b"\t"),
    *b"*a *x { } [ ] , | > # ' \" \0 \xff ~ 1:2:3".split(),
]


def refused_or_read(path: Path, data: bytes, read: Callable[[str], object], *errors: type[BatchPipelineError]) -> None:
    path.write_bytes(data)
    with ends():
        try:
            found = read(str(path))
        except errors as error:
            assert error.message  # noqa: PT017
            return
        assert not is_too_deep(found)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed") / "file.yaml"


@examples(120)
@given(data=damaged(YAML, YAML_WORDS))
def test_files_of_parameters(file: Path, data: bytes) -> None:
    refused_or_read(file, data, read_mapping, Refused)
    with ends(), suppress(Refused):
        read_body(str(file), ["node_count=3"], "x").parse(Settings())


@examples(80)
@given(data=damaged(YAML[2:3], YAML_WORDS))
def test_tables_of_node_specs(file: Path, data: bytes) -> None:
    refused_or_read(file, data, lambda path: list(load_node_specs(Path(path)).ids), InvalidSettings)


@examples(20, share=0.05)
@given(data=damaged([REVIEWS.encode()], YAML_WORDS))
def test_declared_services(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("declared")
    (folder / "reviews").mkdir()
    (folder / "reviews/defs.yaml").write_bytes(data)
    with ends(120), suppress(InvalidSettings):
        load_folder(folder)


BODIES = [
    json.dumps(body(envs={"A": "1"})).encode(),
    json.dumps(
        body(mapping_rule=json.dumps(NUMBERED), src_type="ManifestFile", src_path="s3://bbb/x.manifest")
    ).encode(),
    json.dumps(body(top={"description": "x", "workspace_id": "0", "tags": []}, mapping_type="file")).encode(),
]


@examples(250)
@given(damaged(BODIES, [*JSON_WORDS, b'"config"', b'"infer_type"', b'"mapping_rule": "[', b'\\"']))
def test_bodies_of_the_original_api(data: bytes) -> None:
    with ends(), suppress(InvalidParameters, Refused, json.JSONDecodeError):
        found = parse_json(data.decode("utf-8", "replace"), "the body")
        if isinstance(found, dict):
            read_modelarts(found).parse(Settings())


# --- results read back ---------------------------------------------------------------------------------------


@examples(60, share=0.1)
@given(
    manifest=damaged([b'{"source": "s3://b/1.csv", "inference-loc": "INFER-RESULT"}\n'], JSON_WORDS),
    errors=damaged([b'{"source": "s3://b/2.csv", "error": {"code": "not_found", "message": "gone"}}\n'], JSON_WORDS),
    result=damaged(
        [b'{"label": 1, "p": [0.5, {"a": 1}]}\n{"error": {"code": "x", "message": "y"}}\n', b'[[1], "x", null]\n1e3\n'],
        JSON_WORDS,
    ),
)
def test_results(tmp_path_factory: pytest.TempPathFactory, manifest: bytes, errors: bytes, result: bytes) -> None:
    folder = tmp_path_factory.mktemp("results")
    output = Location("", f"{folder}/".removeprefix("/"), "file")
    (folder / "infer-result").mkdir()
    (folder / "infer-result/1.csv_result.txt").write_bytes(result)
    place = output.child("infer-result/1.csv_result.txt").uri.encode()
    (folder / "infer-result-0.manifest").write_bytes(manifest.replace(b"INFER-RESULT", place))
    (folder / "infer-error-0.manifest").write_bytes(errors)
    storage = Storage(allow_local=True)
    with ends(), suppress(Refused, StorageFailed):
        export_results(output, storage, folder / "all.csv")
        export_results(output, storage, folder / "all.parquet")


# --- what a service has written down -------------------------------------------------------------------------

LOCK = json.dumps(
    {
        "owner": {
            "run_id": "r",
            "service": "flowers",
            "process": {"host": "h", "boot": "b", "pid": 1, "started": "1", "namespace": ""},
        },
        "beat": 1700000000.5,
    }
).encode()
RECORD = b'{"service": "flowers", "made_from": {"model": "x", "node_count": 2}, "attempt": 1, "run": "r"}'
RECORDS = [
    RECORD,
    *(RECORD.replace(b"2}", count + b"}") for count in (b"null", b'"x"', b"-1", b"1e9", b"9" * 18)),
    RECORD.replace(b'"x"', b"[" * 500 + b"]" * 500),
    RECORD.replace(b', "node_count": 2', b""),
    RECORD.replace(b'"attempt": 1', b'"attempt": -1'),
]


@examples(150)
@given(
    lock=damaged([LOCK, LOCK.replace(b"{", b"[")], JSON_WORDS),
    record=damaged(RECORDS, [*JSON_WORDS, b'"more": 1, ']),
)
def test_records_in_an_output_folder(tmp_path_factory: pytest.TempPathFactory, lock: bytes, record: bytes) -> None:
    """The folder of somebody else, or of nobody."""
    folder = tmp_path_factory.mktemp("output")
    layout = OutputLayout(Location("", f"{folder}/".removeprefix("/"), "file"))
    storage = Storage(allow_local=True)
    storage.write(layout.lock, lock)
    storage.write(layout.service, record)
    with ends():
        for look in (check_free, inspect):
            with suppress(Refused):
                look(storage, layout, "flowers")
        with suppress(Refused):
            found = load_record(storage, layout)
            assert found is None or (found.fingerprint and found.made_from["node_count"] > 0)
            # Whoever may not delete it as a service's own may still be asked to.
            delete_results(layout.output, "flowers", Deployment(Settings(allow_local_files=True, lock_seconds=0.01)))
