"""How fast the service is, beside what else one could run. `python -m benchmarks --help`."""
