"""How fast one compute node is, over local files and without Dagster. `python -m benchmarks --help`."""
