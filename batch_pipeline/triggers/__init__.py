"""What deploys services by itself: what is new in a bucket, a queue or the registry. Dagster is not known here."""
