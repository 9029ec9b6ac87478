"""The names by which runs, partitions and tags of services are known to Dagster. Nothing is imported here."""

SERVICE = "batch_service"
"""The declaration of the services that the Launchpad and the command line deploy: its graph's op and its set of
partitions, one of which is one service."""

STEPS = ("ingest_manifest", "map_columns", "fan_out", "write_manifests")
"""The ops in the graph of every declaration, besides those of the node specs."""

DEPLOY = "deploy_"
JOB = f"{DEPLOY}service"
"""Not the name of the graph: Dagster makes a graph of each asset job's name, and the names must differ."""

INFER = "infer_on_"
VALIDATE = "validate_models"

RESERVED = frozenset({SERVICE, "service", "batch_pipeline__model", "model_version", VALIDATE, *STEPS})
RESERVED_PREFIXES = (DEPLOY, INFER)
"""What no declaration may be called, nor begin with: jobs, ops, assets and partitions of these names exist."""

LOCATION = "batch_pipeline"
DEFINITIONS_MODULE = "batch_pipeline.definitions"
DEFINITIONS_ATTRIBUTE = "defs"

INPUT_MANIFEST = "input_manifest"
INFERENCE_RESULTS = "inference_results"
OUTPUT_MANIFEST = "output_manifest"
ASSETS = (INPUT_MANIFEST, INFERENCE_RESULTS, OUTPUT_MANIFEST)
"""Those of which one partition is one service."""

TAG_SERVICE = "batch_pipeline/service"
TAG_DECLARATION = "batch_pipeline/declaration"
"""Whose partition the service is; services of the Launchpad and the command line have none."""
TAG_OUTPUT = "batch_pipeline/output"
TAG_MODEL = "batch_pipeline/model"
TAG_NODES = "batch_pipeline/nodes"
TAG_DESCRIPTION = "batch_pipeline/description"
TAG_EDITED = ".dagster/batch_pipeline/description_edited"
"""Not empty where the description is one that somebody edited, and not of the template or of the run's own config."""
TAG_INPUTS = "batch_pipeline/inputs"
TAG_INPUTS_DONE = "batch_pipeline/inputs_done"
TAG_OVERWRITE = "batch_pipeline/overwrite"
"""Holds the id of the one run that may start over; a run made from it carries the tag along, to no effect."""
TAG_NEW_MODEL = "batch_pipeline/new_model"
"""On a backfill and its runs: the model that they were started for. The same content may come back as a new version."""
TAG_REFUSED = ".dagster/batch_pipeline/refused"
"""Holds the id of the one run that was refused before anything was written; a run made from it is another."""
TAG_HOLDER = ".dagster/batch_pipeline/holder"
"""Which process executes the run, so that another can tell when it is gone. The UI shows no tag that begins so."""

ACCOUNTED = "every_input_accounted_for"
"""The asset check on the output manifest."""

PARTITION = "dagster/partition"

RETRY_STRATEGY = "dagster/retry_strategy"
"""What Dagster executes again of a run whose worker crashed."""
ALL_STEPS = "ALL_STEPS"
MAX_RETRIES = "dagster/max_retries"
"""How often Dagster does so, where a run is to differ from the instance."""


def job_name(declaration: str) -> str:
    """The job that deploys the services of a declaration."""
    return JOB if declaration == SERVICE else f"{DEPLOY}{declaration}"


def full_name(declaration: str, partition: str) -> str:
    """How a service is called where those of all declarations stand together."""
    return partition if declaration == SERVICE else f"{declaration}/{partition}"
