"""config.json of a model package: its keys, its rules and its APIs. Nothing here looks at the ONNX file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from batch_pipeline.errors import ModelRefused
from batch_pipeline.models.json_files import read_json
from batch_pipeline.models.schema import Schema

CONFIG_FILE = "config.json"
MOST_APIS = 1000
"""Of one model; each is bound to the ONNX graph when its package is judged."""
_ALGORITHM = re.compile(r"[A-Za-z].{0,35}", re.DOTALL)


@dataclass(frozen=True)
class FileInfo:
    """One file of a package. `sha256` is in hexadecimal digits."""

    size: int
    etag: str
    sha256: str


@dataclass(frozen=True)
class Api:
    """One entry of `apis`: what a request at `url` looks like, and how it reaches the ONNX graph where that is said."""

    url: str
    protocol: str
    method: str
    kind: Literal["json", "file"]
    request_schema: Schema | None
    response_schema: Schema | None
    inputs: Mapping[str, Any]
    """ONNX input name → the request's leaf, or list of leaves, that fills it (or leaf → ONNX input)."""
    outputs: Mapping[str, Any]
    """ONNX output name → the response's leaf it fills (or leaf → ONNX output)."""
    labels: Any = None


class OnnxOptions(BaseModel):
    """The `onnx` object of config.json: what cannot be told from the ONNX file."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, protected_namespaces=())

    model_file: str = "model.onnx"
    inputs: dict[str, Any] = Field(default_factory=dict)
    outputs: dict[str, Any] = Field(default_factory=dict)
    labels: Any = None


class PackageConfig(BaseModel):
    """config.json. Keys it does not know are kept and ignored."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, protected_namespaces=())

    model_algorithm: str | None = None
    model_type: str | None = None
    metrics: dict[str, Any] | None = None
    entries: list[dict[str, Any]] | None = Field(default=None, alias="apis")
    """`apis` as it stands in the file."""
    source_type: str | None = None
    onnx: OnnxOptions = Field(default_factory=OnnxOptions)

    @property
    def automatic_learning(self) -> bool:
        """Whether the model was made by automatic learning, which decides the node specs it may use."""
        return self.source_type == "auto"

    @property
    def classifies_images(self) -> bool:
        """Whether answers are a predicted label and scores instead of the ONNX outputs."""
        return self.model_algorithm == "image_classification"

    @cached_property
    def apis(self) -> tuple[Api, ...]:
        """The APIs that can be read."""
        return tuple(read_apis(self)[0])

    def api(self, url: str) -> Api:
        """The API at a request path. Raises ModelRefused listing the model's urls."""
        for api in self.apis:
            if api.url == url:
                return api
        urls = ", ".join(api.url for api in self.apis)
        raise ModelRefused(f"request_path: the model has no API at {url!r}; it has {urls or 'none'}")


def read_config(content: bytes) -> tuple[PackageConfig | None, list[str]]:
    """What config.json says, and everything wrong with it.

    A key that cannot be read counts as left out, so that the others are judged all the same; None where
    the file is no JSON object.
    """
    try:
        raw = read_json(content, CONFIG_FILE)
    except ModelRefused as error:
        return None, [error.message]
    if not isinstance(raw, dict):
        return None, [f"{CONFIG_FILE}: a JSON object is expected"]
    unreadable: list[str] = []
    try:
        config = PackageConfig.model_validate(raw)
    except ValidationError as error:
        unreadable = [_problem(one["loc"], one["msg"]) for one in error.errors()]
        wrong = {one["loc"][0] for one in error.errors()}
        raw = {key: value for key, value in raw.items() if key not in wrong}
        config = PackageConfig.model_validate(raw)
        return config, unreadable + [problem for problem in _broken_rules(config) if problem.split(":")[0] not in wrong]
    return config, _broken_rules(config)


def read_apis(config: PackageConfig) -> tuple[list[Api], list[str]]:
    """The APIs that can be read, and what is wrong with the others; of too many none is read."""
    entries = config.entries or []
    if len(entries) > MOST_APIS:
        return [], [f"apis: {len(entries):,} are more than a model may have, which is {MOST_APIS:,}"]
    apis: list[Api] = []
    problems: list[str] = []
    urls: set[str] = set()
    for index, entry in enumerate(entries):
        try:
            api = _read_api(entry, f"apis[{index}]", config.onnx)
        except ModelRefused as error:
            problems.append(error.message)
            continue
        if api.url in urls:
            problems.append(f"apis[{index}].url: {api.url!r} is the url of another API too")
        else:
            urls.add(api.url)
            apis.append(api)
    return apis, problems


def _broken_rules(config: PackageConfig) -> list[str]:
    problems = []
    if config.model_algorithm is None:
        problems.append("model_algorithm: missing; a name such as image_classification is expected")
    elif not _ALGORITHM.fullmatch(config.model_algorithm):
        problems.append(
            f"model_algorithm: {config.model_algorithm!r} must start with a letter and have at most 36 characters"
        )
    if config.model_type != "ONNX":
        problems.append(
            f"model_type: {'missing' if config.model_type is None else repr(config.model_type)}; ONNX is expected"
        )
    if not config.entries:
        problems.append("apis: missing; a list with at least one API is expected")
    return problems


def _problem(where: tuple[int | str, ...], what: str) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).removeprefix(".")
    return f"{path}: {what[:1].lower()}{what[1:]}"


def _read_api(entry: Mapping[str, Any], where: str, onnx: OnnxOptions) -> Api:
    own = _object(entry, "onnx", where)
    if "model_file" in own:
        raise ModelRefused(f"{where}.onnx.model_file: a package has one ONNX file, named in onnx.model_file")
    content_type, request = _body(entry, "request", where)
    _, response = _body(entry, "response", where)
    return Api(
        url=_text(entry, "url", where, "/"),
        protocol=_text(entry, "protocol", where, "http"),
        method=_text(entry, "method", where, "post"),
        kind="file" if _takes_file(content_type, request) else "json",
        request_schema=request,
        response_schema=response,
        inputs=_object(own, "inputs", f"{where}.onnx") or _object(entry, "inputs", where) or onnx.inputs,
        outputs=_object(own, "outputs", f"{where}.onnx") or _object(entry, "outputs", where) or onnx.outputs,
        labels=own.get("labels", entry.get("labels")),
    )


def _body(entry: Mapping[str, Any], key: str, where: str) -> tuple[str, Schema | None]:
    """Content type and schema of `request` or `response`: under `data`, or the object itself."""
    body = _object(entry, key, where)
    types = [value for name, value in body.items() if name.lower().replace("_", "-") == "content-type"]
    content_type = types[0] if types and isinstance(types[0], str) else ""
    if "data" in body:
        return content_type, _object(body, "data", f"{where}.{key}") or None
    schema = body if {"type", "properties", "items"} & set(body) else None
    return content_type, schema


def _takes_file(content_type: str, schema: Schema | None) -> bool:
    properties = (schema or {}).get("properties")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data" or not isinstance(properties, Mapping):
        return False
    files = [one for one in properties.values() if isinstance(one, Mapping) and one.get("type") == "file"]
    return len(files) == 1


def _object(entry: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = entry.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ModelRefused(f"{where}.{key}: an object is expected, not {value!r}")
    return value or {}


def _text(entry: Mapping[str, Any], key: str, where: str, default: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise ModelRefused(f"{where}.{key}: a text is expected, not {value!r}")
    return value or default
