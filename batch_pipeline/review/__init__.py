"""What a reviewer asks of a finished service, computed from what is in storage. Plain data; never imports dagster."""
