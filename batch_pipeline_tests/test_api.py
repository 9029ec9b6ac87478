from __future__ import annotations

import subprocess
import sys

import pytest

import batch_pipeline
from batch_pipeline.errors import InvalidParameters


def test_the_package_offers_what_the_command_line_does() -> None:
    names = {"deploy", "preview", "load_results", "list_services", "show_service", "run_service", "stop_service"}
    assert names <= set(dir(batch_pipeline))
    assert all(callable(getattr(batch_pipeline, name)) for name in batch_pipeline.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = batch_pipeline.nothing


def test_importing_the_package_loads_nothing() -> None:
    code = "import batch_pipeline, sys; print([n for n in ('pydantic', 'dagster', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_module_takes_the_place_of_a_function() -> None:
    import batch_pipeline.previewing

    assert callable(batch_pipeline.preview)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(InvalidParameters) as caught:
        batch_pipeline.deploy({"model": "iris", "nodecount": 1}, name="a b")
    assert [problem.where for problem in caught.value.problems] == ["name", "input_path", "output_path", "nodecount"]


def test_the_originals_body_is_read_with_warnings() -> None:
    body = {"infer_type": "batch", "service_name": "x", "vpc_id": "1", "config": [{"model_id": "iris", "weight": 100}]}
    with pytest.warns(UserWarning, match="means nothing here") as told, pytest.raises(InvalidParameters) as caught:
        batch_pipeline.deploy(body)
    assert {warning.filename for warning in told} == {__file__}
    assert [problem.where for problem in caught.value.problems] == ["config.0.src_path", "config.0.dest_path"]
