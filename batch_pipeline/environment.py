"""The environment variables of a service: resolved from the deployment's own, set around a node's work alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from batch_pipeline.errors import InvalidParameters, Problem
from batch_pipeline.parameters import EnvReference

Environment = Mapping[str, str | EnvReference]


def resolve(environment: Environment) -> dict[str, str]:
    """The values to set. Raises InvalidParameters where the deployment lacks a variable that is referred to."""
    problems = [
        Problem(f"environment.{name}", f"the deployment has no variable {value.env}; set it where the nodes run")
        for name, value in environment.items()
        if isinstance(value, EnvReference) and value.env not in os.environ
    ]
    if problems:
        raise InvalidParameters(tuple(problems))
    return {
        name: os.environ[value.env] if isinstance(value, EnvReference) else value for name, value in environment.items()
    }


@contextmanager
def applied(environment: Environment) -> Iterator[None]:
    """Sets the variables for the block and puts back what was there before."""
    values = resolve(environment)
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def fingerprint(environment: Environment) -> dict[str, str]:
    """What the records keep: a reference by its name, a value by its digest alone."""
    return {
        name: f"env:{value.env}" if isinstance(value, EnvReference) else hashlib.sha256(value.encode()).hexdigest()
        for name, value in sorted(environment.items())
    }
