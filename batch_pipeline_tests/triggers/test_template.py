"""Names of services and templates of their parameters: what is filled in, and what is refused and how."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_pipeline.errors import InvalidParameters
from batch_pipeline.parameters import NAME, parse_parameters
from batch_pipeline.settings import Settings
from batch_pipeline.triggers.template import Occasion, ServiceTemplate, service_name

TIME = datetime(2026, 11, 22, 5, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
OCCASION = Occasion("flowers-0123abcd", "flowers", TIME, "0123abcd")
GIVEN = {"model": "iris", "input_path": "s3://in/x/", "output_path": "s3://out/res/{name}/"}


def template(**changes) -> ServiceTemplate:
    return ServiceTemplate({key: value for key, value in {**GIVEN, **changes}.items() if value is not None})


def problems(changes, *, many: bool = True, input_given: bool = True) -> str:
    with pytest.raises(InvalidParameters) as refused:
        template(**changes).check(Settings(), many=many, input_given=input_given)
    return str(refused.value)


def test_a_name_is_the_stem_and_a_digest() -> None:
    digest = hashlib.sha256(b"in/b a.manifest\netag").hexdigest()[:8]
    assert service_name("b a", "in/b a.manifest", "etag") == f"b-a-{digest}"
    assert service_name("花 1", "k", "e").startswith("花-1-")
    assert service_name("x" * 100, "k", "e").startswith("x" * 55 + "-")


@pytest.mark.parametrize("stem", ["", "...", "--", "é"])
def test_a_stem_of_which_nothing_is_left(stem: str) -> None:
    assert re.fullmatch("service-[0-9a-f]{8}", service_name(stem, "k", "e"))


@given(st.text(), st.text(), st.text())
def test_every_name_is_one(stem: str, key: str, etag: str) -> None:
    assert NAME.fullmatch(service_name(stem, key, etag))
    assert service_name(stem, key, etag)[-8:] != service_name(stem, key + "x", etag)[-8:]


def test_texts_at_any_depth_are_filled() -> None:
    made = template(
        description="{stem} at {time}",
        mapping={"a": ["{name}", 1, {"b": "{etag8}{{x}}{{name}}{{{stem}}}"}]},
        environment={"SECRET": {"env": "NAME"}, "WHEN": "{time}"},
        node_count=2,
    ).expand(OCCASION, input_path="s3://in/flowers.manifest")
    assert made == {
        "model": "iris",
        "input_path": "s3://in/flowers.manifest",
        "output_path": "s3://out/res/flowers-0123abcd/",
        "description": "flowers at 20261122T030000Z",
        "mapping": {"a": ["flowers-0123abcd", 1, {"b": "0123abcd{x}{name}{flowers}"}]},
        "environment": {"SECRET": {"env": "NAME"}, "WHEN": "20261122T030000Z"},
        "node_count": 2,
    }


def test_what_a_text_needs_must_be_known() -> None:
    made = template(output_path="s3://out/{stem}/{time}/", environment={"A": "{etag8}"})
    with pytest.raises(InvalidParameters) as refused:
        made.expand(Occasion("x"))
    assert [problem.where for problem in refused.value.problems] == ["output_path", "output_path", "environment.A"]
    assert "output_path: holds {stem}, which what fired does not know" in str(refused.value)


def test_an_overridden_text_needs_nothing() -> None:
    assert template(input_path="s3://in/{stem}/").expand(Occasion("x"), input_path="y", name="x")["input_path"] == "y"


@given(st.text(max_size=300).filter(lambda text: not re.search("[\ud800-\udfff]", text)))
def test_no_file_name_makes_a_description_that_is_refused(stem: str) -> None:
    made = template(description="all of {stem}").expand(Occasion("x-0123abcd", stem))
    parse_parameters(made, settings=Settings())


def test_placeholders() -> None:
    made = template(description="{time} {{stem}}", mapping={"x": [{"y": "{etag8}"}]})
    assert made.placeholders == {"name", "time", "etag8"}
    assert ServiceTemplate({"model": "iris", "node_count": 1}).placeholders == frozenset()


@pytest.mark.parametrize("stem", ["", ".", ".."])
def test_no_stem_leads_out_of_its_folder(stem: str) -> None:
    made = template(output_path="s3://out/{stem}/{etag8}/").expand(Occasion("x-0123abcd", stem, etag8="0123abcd"))
    assert made["output_path"] == "s3://out/service/0123abcd/"


@pytest.mark.parametrize("changes", [{}, {"output_path": "s3://out/{stem}-{etag8}/"}, {"input_path": None}])
def test_a_good_template(changes) -> None:
    template(**changes).check(Settings(), many=True, input_given=True)


def test_a_good_template_of_a_schedule_and_of_one_service() -> None:
    template(output_path="s3://out/{time}/").check(Settings(), many=True, input_given=False)
    template(output_path="s3://out/res/").check(Settings(), many=False, input_given=False)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"output_path": "s3://out/{foo}/{name}"},
            "output_path: has {foo} that is no placeholder; the placeholders are",
        ),
        ({"mapping": {"x": ['{"a": 1}']}}, 'mapping.x.0: has {"a": 1} that is no placeholder'),
        ({"mapping": {"x": "a { b"}}, "mapping.x: has a brace that is no placeholder"),
        ({"mapping": {"x": "}"}}, "a brace as such is {{ or }}"),
        ({"description": "{}"}, "description: has {} that is no placeholder"),
        ({"output_path": "s3://out/res/"}, "output_path: must hold {name}, or {stem} and {etag8}"),
        ({"output_path": "s3://out/{stem}/"}, "output_path: must hold {name}, or {stem} and {etag8}"),
        ({"output_path": "s3://out/{time}/"}, "output_path: must hold {name}, or {stem} and {etag8}"),
        ({"output_path": "s3://out/{{name}}/"}, "output_path: must hold {name}"),
        ({"output_path": None}, "output_path: is missing"),
        ({"name": "x"}, "name: can't be given in a template"),
        ({"nodecount": 2}, "nodecount: is not a parameter; did you mean node_count?"),
        ({"node_count": "{name}"}, "node_count: must be an integer of 1 or more"),
        ({"input_path": "s3://in/{stem}"}, "input_path: must be a folder"),
        ({"output_path": "{name}"}, "output_path: output_path"),
    ],
)
def test_what_is_refused(changes, says: str) -> None:
    if changes == {"output_path": "{name}"}:
        says = "is no location"
    assert says in problems(changes)


def test_everything_is_said_at_once() -> None:
    said = problems({"output_path": "s3://out/{foo}/", "name": "x", "node_count": 0, "extra": 1})
    assert [part.split(":")[0] for part in said.split("; ") if ": " in part and "/" not in part.split(":")[0]] == [
        "output_path",
        "node_count",
        "extra",
        "name",
        "output_path",
    ]


def test_without_a_trigger_on_data() -> None:
    assert "input_path: is missing" in problems({"input_path": None}, input_given=False)
    assert "must hold {name} or {time}" in problems({"output_path": "s3://out/x/"}, input_given=False)
    said = problems({"description": "{stem}"}, input_given=False)
    assert "description: holds {stem}, which what fired does not know" in said


def test_a_variable_is_never_shown() -> None:
    said = problems({"environment": {"KEY": "a{secret}b"}})
    assert "environment.KEY: has a brace that is no placeholder" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("output", "state"),
    [
        ("s3://out/{name}/", "s3://out/_triggers/"),
        ("s3://out/res/of-{name}/x", "s3://out/res/_triggers/"),
        ("s3://out/{{a}}/{time}/{name}", "s3://out/{a}/_triggers/"),
        ("s3://out/res/", "s3://out/_triggers/"),
        ("/out/{name}", "/out/_triggers/"),
        ("file:///data/out/{name}/", "file:///data/out/_triggers/"),
    ],
)
def test_the_state_folder(output: str, state: str) -> None:
    assert template(output_path=output).state_folder == state


@pytest.mark.parametrize("output", ["s3://{stem}/{name}/", "s3://out-{stem}/", "/{name}/", "s3://out/", None, 5])
def test_no_place_for_a_state_folder(output) -> None:
    with pytest.raises(InvalidParameters, match="output_path: has no folder before its first placeholder"):
        _ = template(output_path=output).state_folder
