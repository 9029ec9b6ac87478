"""`python -m batch_pipeline` is `batch-pipeline`."""

from batch_pipeline.cli import main

main()
