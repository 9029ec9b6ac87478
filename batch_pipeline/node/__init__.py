"""One compute node: reads its inputs, runs the model over them, writes the results. Never imports dagster."""
