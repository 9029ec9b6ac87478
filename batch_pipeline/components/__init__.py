"""Dagster components: how any Dagster project declares batch services in YAML, beside its own assets."""
