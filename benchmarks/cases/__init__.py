"""One program for each row of the table, each to be run alone as `python -m benchmarks.cases.NAME`.

Each has one function, `run`, from a workbench to outcomes.
"""

CASES = (
    "plain_csv",
    "ray_csv",
    "strings",
    "mixed",
    "zipmap",
    "memory",
    "squeezenet",
    "resnet50",
    "small_files",
    "two_nodes",
    "one_row",
    "three_nodes",
    "manifest",
    "division",
)
"""In the order of the table."""


class NotHere(Exception):
    """A case needs something that is not installed."""
