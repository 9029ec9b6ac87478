"""The Dagster half: it turns run config into calls of `batch_pipeline.service`, and reports into metadata."""
