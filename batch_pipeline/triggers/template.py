"""A declaration's parameters with placeholders in their texts, and the parameters of each service they become."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from batch_pipeline.errors import InvalidLocation, InvalidParameters, Problem
from batch_pipeline.locations import parse_folder
from batch_pipeline.parameters import parse_parameters
from batch_pipeline.settings import Settings

PLACEHOLDERS = ("name", "stem", "time", "etag8")
SUFFIX = ".manifest"
_ILLEGAL = re.compile(r"[^A-Za-z0-9_\-\u4e00-\u9fff]")
_NOT_IN_DESCRIPTIONS = re.compile("[!<>=&\"']")
_MAX_NAME, _MAX_DESCRIPTION = 64, 100
_BRACES = re.compile(r"\{\{|\}\}|\{(?P<name>[^{}]*)\}|[{}]")
_NO_FOLDERS = ("", ".", "..")
"""Stems of which a path would lead elsewhere than to a folder of their own."""
_SAMPLE_INPUT = "s3://what-a-trigger-found/sample.manifest"


def version_digest(key: str, etag: str) -> str:
    """The first 8 hex digits of the SHA-256 of `key`, a line feed, and `etag` (UTF-8): one version of one object."""
    return hashlib.sha256(f"{key}\n{etag}".encode("utf-8", "surrogatepass")).hexdigest()[:8]


def service_name(stem: str, key: str, etag: str) -> str:
    """The name of the service made for one version of one object: at most 64 characters.

    The stem with each character that no name may have replaced by `-`, cut to fit (`service` where nothing else is
    left), then `-` and the first 8 hex digits of SHA-256(key + line feed + ETag), as `version_digest` says.
    """
    digest = version_digest(key, etag)
    legal = _ILLEGAL.sub("-", stem)[: _MAX_NAME - 1 - len(digest)]
    return f"{legal if legal.strip('-') else 'service'}-{digest}"


@dataclass(frozen=True)
class Occasion:
    """What a trigger fired for. `time` has a zone; what a kind of trigger does not know is None."""

    name: str
    stem: str | None = None
    time: datetime | None = None
    etag8: str | None = None

    def value(self, placeholder: str) -> str | None:
        """What stands for a placeholder, None where this occasion does not say."""
        if placeholder == "time":
            return f"{self.time.astimezone(UTC):%Y%m%dT%H%M%SZ}" if self.time else None
        stem = "service" if self.stem in _NO_FOLDERS else self.stem
        return {"name": self.name, "stem": stem, "etag8": self.etag8}[placeholder]


@dataclass(frozen=True)
class ServiceTemplate:
    """A service's parameters in which texts, at any depth, may hold `{name}`, `{stem}`, `{time}` and `{etag8}`.

    `{{` and `}}` are braces; any other brace is an error. `{env: NAME}` is a mapping, not a text.
    """

    parameters: Mapping[str, Any]

    @property
    def placeholders(self) -> frozenset[str]:
        """Every placeholder that stands somewhere in it."""
        texts = (text for _, text in _texts(self.parameters))
        return frozenset(name for text in texts for name in placeholders_of(text))

    @property
    def output_path(self) -> str:
        """The output path as it was written, empty where there is none."""
        text = self.parameters.get("output_path")
        return text if isinstance(text, str) else ""

    @property
    def state_folder(self) -> str:
        """Where triggers keep their state unless told otherwise: `_triggers/` beside the services' output folders.

        Raises InvalidParameters where nothing of `output_path` is the same for all services.
        """
        first = next((found for found in _BRACES.finditer(self.output_path) if found["name"] is not None), None)
        fixed = self.output_path[: first.start()] if first else self.output_path.rstrip("/")
        folder = literal(fixed[: fixed.rfind("/") + 1])
        try:
            parse_folder(folder, allow_local=True)
        except InvalidLocation:
            what = "has no folder before its first placeholder in which triggers could keep their state"
            raise InvalidParameters((Problem("output_path", what),)) from None
        return f"{folder}_triggers/"

    def check(self, settings: Settings, *, many: bool, input_given: bool) -> None:
        """Raises InvalidParameters with everything that is wrong, found by making a sample service of the template.

        `many`: several services come of it, so each needs an output folder of its own. `input_given`: its triggers
        bring the input, so that `input_path` may be missing, and `{stem}` and `{etag8}` are known.
        """
        sample = Occasion("sample-0123abcd", time=datetime(2026, 1, 1, tzinfo=UTC))
        if input_given:
            sample = Occasion(sample.name, "sample", sample.time, "0123abcd")
        filled, found = self._fill(sample)
        if input_given:
            filled.setdefault("input_path", _SAMPLE_INPUT)
        bad = {problem.where for problem in found}
        try:
            parse_parameters(filled, settings=settings)
        except InvalidParameters as error:
            found += [problem for problem in error.problems if problem.where not in bad]
        if "name" in self.parameters:
            what = "can't be given in a template: each service is named after what it was made for"
            found.append(Problem("name", what))
        if many and self.output_path and not self._output_differs(input_given):
            found.append(
                Problem("output_path", f"must hold {_differing(input_given)}: each service has its own folder")
            )
        if found:
            raise InvalidParameters(tuple(dict.fromkeys(found)))

    def expand(self, occasion: Occasion, **overrides: Any) -> dict[str, Any]:
        """The parameters of the service for an occasion, with `overrides` in place of what the template says.

        Raises InvalidParameters that names key and placeholder where the occasion lacks what a text needs.
        """
        kept = {key: value for key, value in self.parameters.items() if key not in overrides}
        filled, found = ServiceTemplate(kept)._fill(occasion)
        if found:
            raise InvalidParameters(tuple(found))
        return {**filled, **overrides}

    def _fill(self, occasion: Occasion) -> tuple[dict[str, Any], list[Problem]]:
        """The parameters with every placeholder replaced, and what could not be; such a text stays as it was."""
        found: list[Problem] = []

        def fill(value: Any, where: str) -> Any:
            if isinstance(value, Mapping):
                return {key: fill(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [fill(item, f"{where}.{index}") for index, item in enumerate(value)]
            if not isinstance(value, str):
                return value
            try:
                return _fill_text(value, where, occasion)
            except InvalidParameters as error:
                found.extend(error.problems)
                return value

        return {str(key): fill(value, str(key)) for key, value in self.parameters.items()}, found

    def _output_differs(self, input_given: bool) -> bool:
        held = placeholders_of(self.output_path)
        return "name" in held or held >= {"stem", "etag8"} or ("time" in held and not input_given)


def placeholders_of(text: str) -> frozenset[str]:
    """The placeholders of one text; whatever else stands in single braces is none."""
    return frozenset(found["name"] for found in _BRACES.finditer(text) if found["name"] in PLACEHOLDERS)


def literal(text: str) -> str:
    """A text without placeholders as it is meant: doubled braces are single ones."""
    return text.replace("{{", "{").replace("}}", "}")


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, f"{where}.{index}")


def _fill_text(text: str, where: str, occasion: Occasion) -> str:
    found = list(_BRACES.finditer(text))
    problems = dict.fromkeys(what for brace in found if (what := _wrong(brace, where, occasion)))
    if problems:
        raise InvalidParameters(tuple(Problem(where, what) for what in problems))

    def replace(brace: re.Match[str]) -> str:
        if brace["name"] is None:
            return brace.group()[0]
        value = occasion.value(brace["name"]) or ""
        return _NOT_IN_DESCRIPTIONS.sub("-", value) if where == "description" else value

    filled = _BRACES.sub(replace, text)
    # A file's name may be of any length and kind; what people read about the service must not keep it from starting.
    return filled[:_MAX_DESCRIPTION] if where == "description" and placeholders_of(text) else filled


def _wrong(brace: re.Match[str], where: str, occasion: Occasion) -> str:
    name = brace["name"]
    if name is None and len(brace.group()) == 2:
        return ""
    if name not in PLACEHOLDERS:
        # A variable's text may be a secret.
        shown = "a brace" if name is None or where.startswith("environment") else f"{{{name}}}"
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        return f"has {shown} that is no placeholder; the placeholders are {known}; a brace as such is {{{{ or }}}}"
    if occasion.value(name) is None:
        return f"holds {{{name}}}, which what fired does not know"
    return ""


def _differing(input_given: bool) -> str:
    return "{name}, or {stem} and {etag8}" if input_given else "{name} or {time}"
