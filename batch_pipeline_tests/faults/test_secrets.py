"""After services that went well and that went wrong in every way: what was secret stands nowhere that it need not."""

from __future__ import annotations

import base64
import gzip
import io
import json
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest

from batch_pipeline.locations import Location
from batch_pipeline_tests.conftest import S3Server
from batch_pipeline_tests.faults import deadly
from batch_pipeline_tests.faults.scanner import Finding, Scanner
from batch_pipeline_tests.integration.command import Command
from batch_pipeline_tests.places import ROW
from batch_pipeline_tests.test_share_links import obs_style

SECRETS = {
    "signature": "c2lnbmF0dXJlK29mL3RoZQ",
    "token": "dG9rZW4+c2VjdXJpdHk/dGVzdA",
    "literal": "literal-Päss/word+42",
    "referred": "referred-hunter2/of+it",
    "misplaced": "misplaced-hunter2/of+it",
}


@pytest.mark.parametrize("secret", SECRETS.values())
def test_the_scanner_finds_what_is_planted(tmp_path: Path, secret: str) -> None:
    """Raw, quoted, in JSON, in Base64 at any place, packed, in a database's long cells, in a table, in a name."""
    text = f"before {secret} after"
    table = io.BytesIO()
    pl.DataFrame({"a": [text] * 100}).write_parquet(table, compression="zstd")
    kept = {
        "raw": text.encode(),
        "quoted": quote(text, safe="").encode(),
        "twice": quote(quote(text, safe="")).encode(),
        "json": json.dumps({"text": json.dumps(text)}).encode(),
        "hex": text.encode().hex().encode(),
        "gzip": gzip.compress(text.encode()),
        "packed": base64.b64encode(gzip.compress(text.encode())),
        "parquet": table.getvalue(),
        **{f"base64-{n}": b"x" + base64.b64encode(b"." * n + text.encode()) + b"y" for n in range(3)},
    }
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    with closing(sqlite3.connect(tmp_path / "events.db")) as database:
        database.execute("CREATE TABLE event (body TEXT)")
        database.execute("INSERT INTO event VALUES (?)", ("x" * 4000 + text + "y" * 9000,))
        database.commit()
    found = Scanner({"it": secret}).folder(tmp_path)
    assert {one.where for one in found} == {*kept, "events.db"}
    assert Scanner({"it": "something-else-altogether"}).folder(tmp_path) == set()


def _links(server: S3Server, bucket: str, site: str) -> dict[str, str]:
    """Share links that fail in every way, by the way."""
    query = f"AccessKeyId=AK&Expires=99999999999&Signature={quote(SECRETS['signature'], safe='')}"
    query += f"&x-obs-security-token={quote(SECRETS['token'], safe='')}"
    return {
        "refused": f"{server.endpoint}/{bucket}/in/a.csv?{query}",
        "expired": f"{server.endpoint}/{bucket}/in/a.csv?{query.replace('99999999999', '1')}",
        "missing": f"{site}?{query}",
        "host": f"https://files.example.com/a.csv?{query}",
        "private": f"https://10.0.0.1/a.csv?{query}",
        "plain": f"http://bucket.obs.cn-north-4.myhuaweicloud.com/a.csv?{query}",
        "unresolved": f"https://no-such-bucket-of-ours.invalid.amazonaws.com/a.csv?{query}",
        "misspelt": f"htps://files.example.com/a.csv?{query}",
        "blank": f"https://files.example.com/a b.csv?{query}",
        "folder": f"https://files.example.com/a/?{query}",
        "user": f"https://{SECRETS['misplaced'].replace('/', '%2F')}@files.example.com/a.csv?{query}",
        "fragment": f"https://files.example.com/a.csv#{query}",
    }


@pytest.fixture
def command(tmp_path: Path, rgw_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("THE_PASSWORD", SECRETS["referred"])
    command = Command(tmp_path, rgw_bucket)
    command.push_iris()
    return command


def test_no_secret_gets_out(command: Command, rgw_server: S3Server) -> None:
    bucket, said = command.bucket, []
    good = obs_style(rgw_server, bucket, "in/big.csv", int(time.time()) + 3600)
    missing = obs_style(rgw_server, bucket, "in/none.csv", int(time.time()) + 3600)
    command.put("in/a.csv", f"{ROW}\n")
    command.put("in/big.csv", f"{ROW}\nbad\n" * 500)
    links = _links(rgw_server, bucket, missing.partition("?")[0])
    # What is no JSON cannot be told apart: only where it is wrong is said, never what it is.
    lines = [json.dumps({"source": link}) for link in [*links.values(), good, missing]]
    lines += [json.dumps({"source": links["host"]})[:-1], json.dumps({"sauce": links["host"]}), f'"{links["host"]}"']
    lines.append(json.dumps({"source": f"s3://{bucket}/in/big.csv"}))
    command.put("list.manifest", "\n".join(lines))
    secrets = {
        "environment": {"LITERAL": SECRETS["literal"], "REFERRED": {"env": "THE_PASSWORD"}},
        "input_path": f"s3://{bucket}/list.manifest",
    }

    def deploy(name: str, status: int, *more: str, **changes: object) -> None:
        given = {**secrets, "name": name, "output_path": f"s3://{bucket}/out-{name}/", **changes}
        said.extend(command.run("deploy", command.parameters(**given), *more, status=status))

    deploy("alone", 0, "--wait", error_threshold=1)
    deploy("several", 1, "--wait", node_count=2)
    deploy("changed", 0, "--wait", error_threshold=1)
    deploy("changed", 2, "--wait", environment={"LITERAL": SECRETS["misplaced"]})
    deploy("lacking", 2, "--wait", environment={"A": SECRETS["literal"], "B": {"env": "NOT_THERE"}})
    deploy("link", 2, input_path=links["host"])
    deploy("link", 2, output_path=links["misspelt"])
    deploy("wrong", 2, environment={"PATH": SECRETS["misplaced"]})
    misplaced = SECRETS["misplaced"]
    deploy("wrong", 2, environment={"A": [misplaced], "B": {"env": misplaced}, "C": f"\0{misplaced}"})
    deploy("wrong", 2, environment=SECRETS["misplaced"])
    deploy("wrong", 2, "--set", f"environment.LD_PRELOAD={SECRETS['misplaced']}")
    deploy("wrong", 2, "--set", f"environment.A={{[{SECRETS['misplaced']}")
    deploy("model", 2, model="rose")
    deploy("queued", 0)
    for arguments in (["list"], ["list", "--json"], ["show", "alone"], ["show", "several", "--json"]):
        said.extend(command.run("services", *arguments))
    said.extend(command.run("services", "run", "several", "--wait", status=1))
    said.extend(command.run("results", "alone", "--head", "5"))

    scanner = Scanner({**SECRETS, "good": good.partition("Signature=")[2], "key": rgw_server.secret_key})
    kept = scanner.bucket(command.storage, bucket)
    manifests = {one.where for one in kept if one.where.endswith(".manifest")}
    assert {one for one in kept if not one.where.endswith(".manifest")} == set()
    assert manifests == {"list.manifest"} | {
        f"out-{name}/infer-{what}-0.manifest"
        for name in ("alone", "several", "changed")
        for what in ("result", "error")
    }
    assert set().union(*(scanner.text("said", text) for text in said)) == set()
    assert scanner.folder(command.root / "tmp") == scanner.folder(command.root / "cache") == set()
    # Dagster keeps what a run was given, and its steps hand it on: a literal value of `environment`, nothing else.
    home = scanner.folder(command.root / "dagster")
    assert {one for one in home if one.secret != "literal"} == set()
    assert not [one for one in home if not one.where.startswith(("history/runs.db", "storage/"))]
    assert Finding("history/runs.db", "literal") in home


def test_no_secret_gets_out_where_processes_die_and_what_nobody_foresaw_happens(
    command: Command, rgw_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command.root / "site").mkdir()
    monkeypatch.setenv("PYTHONPATH", deadly.python_path(command.root / "site"))
    bucket, said = command.bucket, []
    command.put("in/deadly.csv", f"{ROW}\n{deadly.KILLED},1,1,1\n")
    for number in range(3):
        command.put(f"in/{number}.csv", f"{ROW}\n" * 300)
    links = [
        obs_style(rgw_server, bucket, f"in/{name}.csv", int(time.time()) + 3600) for name in ("0", "deadly", "1", "2")
    ]
    command.put("list.manifest", "\n".join(json.dumps({"source": link}) for link in links))
    secrets = {
        "environment": {"LITERAL": SECRETS["literal"], "REFERRED": {"env": "THE_PASSWORD"}},
        "input_path": f"s3://{bucket}/list.manifest",
        "error_threshold": 1,
    }

    def deploy(name: str, status: int, *options: str, **changes: object) -> None:
        given = {**secrets, "name": name, "output_path": f"s3://{bucket}/out-{name}/", **changes}
        said.extend(command.run(*options, "deploy", command.parameters(**given), "--wait", status=status))

    deploy("several", 0, node_count=2)
    deploy("alone", -signal.SIGKILL)
    said.extend(command.run("services", "run", "alone", "--wait"))
    for name in ("several", "alone"):
        codes = [line["error"]["code"] for node in range(2) for line in errors(command, name, node)]
        assert codes == ["engine_died"]
    monkeypatch.setenv(deadly.AT_LOADING, "1")
    deploy("unloaded", 1, node_count=2)
    said.extend(command.run("services", "show", "unloaded", "--json"))
    monkeypatch.delenv(deadly.AT_LOADING)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["misplaced"])
        patch.setenv("AWS_SESSION_TOKEN", SECRETS["token"])
        deploy("refused", 2)
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        deploy("unreachable", 2)
    with closing(sqlite3.connect(command.root / "dagster/history/runs.db")) as database:
        database.execute("CREATE TRIGGER full BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'no more runs'); END")
        database.commit()
    deploy("unforeseen", 1)
    assert "no more runs" in "".join(path.read_text() for path in (command.root / "tmp").glob("batch-pipeline-*.log"))

    scanner = Scanner(
        {**SECRETS, **dict(zip("0d12", (link.partition("Signature=")[2] for link in links), strict=True))}
    )
    kept = {one.where for one in scanner.bucket(command.storage, bucket)}
    assert kept == {"list.manifest"} | {
        f"out-{name}/infer-{what}.manifest"
        for name, what in (
            ("several", "result-0"),
            ("several", "result-1"),
            ("several", "error-0"),
            ("alone", "result-0"),
            ("alone", "error-0"),
        )
    }
    assert set().union(*(scanner.text("said", text) for text in said)) == set()
    assert scanner.folder(command.root / "tmp") == scanner.folder(command.root / "cache") == set()
    assert {one.secret for one in scanner.folder(command.root / "dagster")} == {"literal"}


def errors(command: Command, name: str, node: int) -> list[dict[str, Any]]:
    """The lines of a node's error manifest, if it has one."""
    key = f"out-{name}/infer-error-{node}.manifest"
    return command.lines(key) if command.storage.exists(Location(command.bucket, key)) else []
