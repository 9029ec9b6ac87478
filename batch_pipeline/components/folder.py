"""The declared services of a deployment's own code location: a folder of components that is part of no project."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import dagster as dg
from dagster._utils.warnings import suppress_dagster_warnings
from dagster.components.core.component_tree import ComponentTree, ComponentTreeException
from dagster_shared.check import CheckError
from dagster_shared.error import DagsterUnresolvableSymbolError
from yaml import MarkedYAMLError, YAMLError

from batch_pipeline.components.telling import told
from batch_pipeline.documents import check_yaml, not_yaml, read_text
from batch_pipeline.errors import InvalidSettings, Refused

MODULE = "batch_pipeline_services"
"""What the folder is called where Dagster wants the name of a Python module."""


@suppress_dagster_warnings
def load_folder(folder: Path) -> dg.Definitions:
    """The definitions of every `<folder>/<name>/defs.yaml`. Raises `InvalidSettings` that names what is wrong."""
    if not folder.is_dir():
        raise InvalidSettings(f"BATCH_PIPELINE_SERVICES: {folder} is no folder")
    files = [file for file in folder.rglob("*.yaml") if file.is_file()]
    if not files:
        return dg.Definitions()
    module = ModuleType(MODULE)
    module.__file__, module.__path__ = str(folder / "__init__.py"), [str(folder)]
    sys.modules[MODULE] = module
    try:
        for file in files:
            check_yaml(read_text(file, str(file)), str(file))
        return ComponentTree.from_module(defs_module=module, project_root=folder).build_defs()
    except ComponentTreeException as error:
        raise InvalidSettings(f"BATCH_PIPELINE_SERVICES: {told(error.__cause__ or error)}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidSettings(
            f"BATCH_PIPELINE_SERVICES: {not_yaml(error, mark.name if mark else str(folder))}"
        ) from None
    except (YAMLError, DagsterUnresolvableSymbolError, CheckError, ValueError) as error:
        # Of what is no component file at all Dagster says so by errors of every kind.
        raise InvalidSettings(f"BATCH_PIPELINE_SERVICES: {folder}: {told(error)}") from error
    except Refused as error:
        raise InvalidSettings(f"BATCH_PIPELINE_SERVICES: {error.message}") from error
    except OSError as error:
        raise InvalidSettings(f"BATCH_PIPELINE_SERVICES: {error.filename}: {error.strerror}") from error
