"""YAML and JSON documents as people write them, read within bounds: a few lines may mean an endless one."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from batch_pipeline.errors import Refused

if TYPE_CHECKING:
    import yaml

LARGEST = 4 * 2**20
"""Bytes of a document that a person wrote."""
DEEPEST = 240
"""Levels of lists and objects in each other: what has more could be read, and then not be written again."""
MOST_VALUES = 100_000
"""Values of a YAML document, each counted as often as aliases repeat it."""
LONGEST_NUMBER = 400
"""Characters. YAML has numbers to the base of 60, which take a time that grows with the square of their length."""

_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_NOT_OF_ITS_TYPE = "a value is not of the type that it looks like or is said to be; text stands in quotes"
_SIGNS = "a value that begins with !, & or * means something else in YAML; text stands in quotes"
_OF_SIGNS = (
    "could not determine a constructor",
    "expected alphabetic or numeric character",
    "found duplicate anchor",
    "found undefined alias",
    "found undefined tag handle",
)
"""How PyYAML begins what it says of them, and goes on with the value, which may be a secret."""
_OF_ANOTHER_TYPE = (ValueError, LookupError, AttributeError, TypeError, OverflowError)
"""What PyYAML comes upon in a value that is not of the type it is written or said to be."""


def is_too_deep(document: object) -> bool:
    """Whether a JSON document has more than DEEPEST levels."""
    level = _containers([document])
    for _ in range(DEEPEST):
        level = _containers(child for one in level for child in (one.values() if isinstance(one, dict) else one))
        if not level:
            return False
    return bool(level)


def read_text(file: Path | BinaryIO, what: str) -> str:
    """The text of a document, a BOM tolerated. Raises Refused whose message begins with `what`, and OSError."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return read_text(opened, what)
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise Refused(f"{what} is larger than {LARGEST // 2**20} MiB, which is the most that is read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refused(f"{what}, line {line}: not UTF-8") from error


def parse_json(text: str, what: str) -> object:
    """Raises Refused whose message begins with `what`, and json.JSONDecodeError where the text is no JSON."""
    try:
        document: object = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, what))
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise Refused(f"{what}: not JSON: {error}") from error
    except RecursionError:
        raise _too_deep(what) from None
    if is_too_deep(document):
        raise _too_deep(what)
    return document


def parse_yaml(text: str, what: str) -> object:
    """One document of plain data. Raises Refused whose message begins with `what` and, where it is known, the line."""
    with _refusals(text, what):
        loader = _loader(text, what)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_repeats(node, what)
        document: object = loader.construct_document(node)
        return document


def check_yaml(text: str, what: str) -> None:
    """For documents that another reader reads: raises Refused where they are more than is read here, or no YAML."""
    with _refusals(text, what):
        loader = _loader(text, what)
        while loader.check_node():
            root = loader.get_node()
            _check_repeats(root, what)
            _check_scalars(loader, root)


def not_yaml(error: yaml.MarkedYAMLError, what: str) -> Refused:
    """What PyYAML said, in one line that repeats no value."""
    problem = error.problem or error.context or ""
    mark = error.problem_mark or error.context_mark
    return Refused(_placed(what, mark, _SIGNS if problem.startswith(_OF_SIGNS) else problem))


def _loader(text: str, what: str) -> Any:
    """Nothing is constructed yet, and so nothing is expanded."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Ends at what is too large, and refuses a key that stands twice, of which YAML would keep the last unsaid."""

        values, level = 0, 0

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            self.values += 1
            self.level += 1
            if self.values > MOST_VALUES:
                raise _too_many(what)
            if self.level > DEEPEST and self.check_event(yaml.CollectionStartEvent):
                raise _too_deep(what)
            node = super().compose_node(parent, index)
            self.level -= 1
            return node

        def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
            if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
                raise Refused(_placed(what, node.start_mark, "a number has too many digits"))
            return super().construct_scalar(node)

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            with _typed(what, node.start_mark, _NOT_OF_ITS_TYPE):
                return super().construct_object(node, deep)

        def scan_flow_scalar_non_spaces(self, double: bool, start_mark: yaml.Mark) -> Any:
            with _typed(what, self.get_mark(), "there is no such character"):
                return super().scan_flow_scalar_non_spaces(double, start_mark)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            _check_keys(node, what)
            return super().construct_mapping(node, deep)

    # YAML 1.1, which PyYAML reads, takes 1e-3 for text.
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
    return Loader(text)


@contextmanager
def _typed(what: str, mark: yaml.Mark, problem: str) -> Iterator[None]:
    try:
        yield
    except _OF_ANOTHER_TYPE:
        raise Refused(_placed(what, mark, problem)) from None


def _placed(what: str, mark: yaml.Mark | None, problem: str) -> str:
    if mark is None:
        return f"{what}: not YAML: {problem}"
    return f"{what}, line {mark.line + 1}: not YAML: {problem} (column {mark.column + 1})"


def _check_keys(node: yaml.MappingNode, what: str) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key.value, str) and key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
            raise Refused(f"{what}, line {key.start_mark.line + 1}: {key.value} stands there twice")
        if isinstance(key.value, str):
            seen.add(key.value)


def _check_repeats(root: yaml.Node, what: str) -> None:
    """Counts level by level what aliases, and merges of them, would make of the document: no more than its own nodes
    are looked at in each. One that holds itself has no deepest level.
    """
    level, values = Counter({root: 1}), 0
    for _ in range(DEEPEST + 1):
        values += sum(level.values())
        if values > MOST_VALUES:
            raise _too_many(what)
        below: Counter[yaml.Node] = Counter()
        for node, times in level.items():
            for child in _children(node):
                below[child] += times
        if not below:
            return
        level = below
    raise _too_deep(what)


def _check_scalars(loader: Any, root: yaml.Node) -> None:
    """Has the values read that are said to be, or that look like, numbers and so on, if not dates: not everybody reads
    what looks like one as such."""
    import yaml

    seen, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, yaml.ScalarNode) and node.tag in loader.yaml_constructors:
            looks_like = loader.resolve(yaml.ScalarNode, node.value, (True, False))
            if node.tag != looks_like or not looks_like.endswith(":timestamp"):
                loader.construct_object(node)
        new = [child for child in _children(node) if child not in seen]
        seen.update(new)
        waiting += new


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    """Of a mapping the keys, too."""
    for child in node.value if isinstance(node.value, list) else ():
        yield from child if isinstance(child, tuple) else (child,)


@contextmanager
def _refusals(text: str, what: str) -> Iterator[None]:
    import yaml

    try:
        yield
    except yaml.MarkedYAMLError as error:
        raise not_yaml(error, what) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Refused(f"{what}, line {line}: not YAML: {error.reason}") from error
    except RecursionError:
        raise _too_deep(what) from None
    except _OF_ANOTHER_TYPE:
        raise Refused(f"{what}: not YAML: {_NOT_OF_ITS_TYPE}") from None


def _object(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Refused(f"{what}: {key} stands there twice")
        found[key] = value
    return found


def _containers(values: Any) -> list[Any]:
    return [one for one in values if isinstance(one, (dict, list))]


def _too_deep(what: str) -> Refused:
    return Refused(f"{what} is nested too deeply: more than {DEEPEST} levels, or an alias within what it repeats")


def _too_many(what: str) -> Refused:
    return Refused(f"{what} holds more than {MOST_VALUES:,} values, each counted as often as aliases repeat it")
