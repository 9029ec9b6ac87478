"""The original API's own JSON body (ModelArts, POST /v1/{project_id}/services), turned into our parameters."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batch_pipeline.documents import parse_json
from batch_pipeline.errors import InvalidParameters, Problem, Refused
from batch_pipeline.parameters import ServiceParameters, parse_parameters
from batch_pipeline.settings import Settings

SPECIFICATIONS = {"modelarts.vm.cpu.2u": "cpu-2u8g", "modelarts.vm.gpu.p4": "gpu-2u8g-p4"}

_TOP = {"service_name": "name", "description": "description"}
_ENTRY = {
    "model_id": "model",
    "src_path": "input_path",
    "req_uri": "request_path",
    "mapping_rule": "mapping",
    "dest_path": "output_path",
    "specification": "node_spec",
    "instance_count": "node_count",
    "envs": "environment",
}
_TOP_READ = {*_TOP, "infer_type", "config"}
_ENTRY_READ = {*_ENTRY, "src_type", "mapping_type"}
_TOP_MEANINGLESS = {
    "additional_properties",
    "cluster_id",
    "deploy_type",
    "is_share",
    "pool_name",
    "project",
    "project_id",
    "schedule",
    "security_group_id",
    "shutdown_immediately",
    "subnet_network_id",
    "tags",
    "vpc_id",
    "workspace_id",
}
_ENTRY_MEANINGLESS = {
    "additional_properties",
    "affinity",
    "cluster_id",
    "custom_spec",
    "deploy_timeout_in_seconds",
    "max_surge",
    "max_unavailable",
    "model_name",
    "model_version",
    "nodes",
    "pool_infos",
    "pool_name",
    "resource_share",
    "scaling",
    "support_debug",
    "weight",
}


@dataclass(frozen=True)
class Body:
    """A body in our terms, not checked yet: `parameters` by our keys, `keys` how the user's body calls them."""

    parameters: dict[str, Any]
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    keys: dict[str, str] = field(default_factory=dict)

    def parse(self, settings: Settings) -> ServiceParameters:
        """Raises `InvalidParameters` with the problems of both, named by the user's own keys."""
        try:
            parameters = parse_parameters(self.parameters, settings=settings)
        except InvalidParameters as error:
            told = {problem.where for problem in self.problems}
            ours = (Problem(self._theirs(problem.where), problem.what) for problem in error.problems)
            raise InvalidParameters((*self.problems, *(own for own in ours if own.where not in told))) from None
        if self.problems:
            raise InvalidParameters(self.problems)
        return parameters

    def _theirs(self, where: str) -> str:
        top, dot, rest = where.partition(".")
        return self.keys.get(top, top) + dot + rest


def is_modelarts(data: Mapping[str, Any]) -> bool:
    """Whether this is the original API's body, and not our own flat object."""
    return "infer_type" in data or "service_name" in data or "config" in data


def read_body(data: Mapping[str, Any]) -> Body:
    """Our own flat object as it is, or the original API's body in our terms. Nothing is raised before `Body.parse`."""
    return _Translator().translate(data) if is_modelarts(data) else Body(dict(data))


class _Translator:
    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._warnings: list[str] = []
        self._parameters: dict[str, Any] = {}
        self._keys: dict[str, str] = {}

    def translate(self, body: Mapping[str, Any]) -> Body:
        top = self._known(body, "", _TOP_READ, _TOP_MEANINGLESS)
        if top.get("infer_type") != "batch":
            self._problem("infer_type", f"must be batch, not {_quoted(top.get('infer_type'))}")
        self._take(top, "", _TOP)
        entries = top.get("config")
        if isinstance(entries, list) and len(entries) == 1 and isinstance(entries[0], Mapping):
            self._entry(self._known(entries[0], "config.0.", _ENTRY_READ, _ENTRY_MEANINGLESS))
        else:
            self._problem("config", "must be a list of exactly one object")
            # What the entry would say is missing because of that, not by itself.
            for key in ("model_id", "src_path", "dest_path"):
                self._keys[_ENTRY[key]] = "config"
        return Body(self._parameters, tuple(self._warnings), tuple(self._problems), self._keys)

    def _entry(self, entry: dict[str, Any]) -> None:
        self._keys.update({ours: "config.0." + theirs for theirs, ours in _ENTRY.items()})
        self._mapping(entry)
        self._source(entry)
        self._specification(entry)
        self._take(entry, "config.0.", _ENTRY)

    def _mapping(self, entry: dict[str, Any]) -> None:
        kind, rule = entry.get("mapping_type"), entry.get("mapping_rule")
        if kind not in (None, "csv", "file"):
            self._problem("config.0.mapping_type", f"must be csv or file, not {_quoted(kind)}")
        if kind == "file" and entry.pop("mapping_rule", None) is not None:
            self._warnings.append("config.0.mapping_rule means nothing with mapping_type file; ignored")
        elif isinstance(rule, str):
            try:
                entry["mapping_rule"] = parse_json(rule, "the text")
            except Refused as error:
                self._problem("config.0.mapping_rule", f"is text that is no rule: {error}")
            except json.JSONDecodeError as error:
                self._problem("config.0.mapping_rule", f"is text that is not JSON: {error}")

    def _source(self, entry: dict[str, Any]) -> None:
        kind, path = entry.get("src_type"), entry.get("src_path")
        if kind not in (None, "ManifestFile"):
            self._problem("config.0.src_type", f"must be ManifestFile or not be there, not {_quoted(kind)}")
        elif kind and isinstance(path, str) and not path.endswith(".manifest"):
            self._problem("config.0.src_path", "must end in .manifest, as src_type ManifestFile says")

    def _specification(self, entry: dict[str, Any]) -> None:
        text = entry.get("specification")
        if isinstance(text, str) and text in SPECIFICATIONS:
            entry["specification"] = SPECIFICATIONS[text]
        elif isinstance(text, str) and text.startswith("modelarts."):
            self._problem("config.0.specification", f"{text!r} is not one of {', '.join(SPECIFICATIONS)}")

    def _take(self, found: Mapping[str, Any], prefix: str, names: Mapping[str, str]) -> None:
        for theirs, ours in names.items():
            self._keys[ours] = prefix + theirs
            if theirs in found:
                self._parameters[ours] = found[theirs]

    def _known(self, body: Mapping[str, Any], prefix: str, read: set[str], meaningless: set[str]) -> dict[str, Any]:
        """What the body says by keys that mean something; a null counts as not said."""
        found = {}
        for key, value in body.items():
            if key in meaningless:
                self._warnings.append(f"{prefix}{key} means nothing here; ignored")
            elif key not in read:
                self._problem(f"{prefix}{key}", _unknown(str(key), read))
            elif value is not None:
                found[key] = value
        return found

    def _problem(self, where: str, what: str) -> None:
        self._problems.append(Problem(where, what))


def _unknown(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key.lower(), sorted(known), n=1)
    return "is not a key of the original API" + (f"; did you mean {close[0]}?" if close else "")


def _quoted(value: object) -> str:
    return "nothing" if value is None else repr(value)
