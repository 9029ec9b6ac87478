"""Where dagster.yaml and workspace.yaml lie: at the top of a checkout, or here where a wheel is installed."""

from pathlib import Path

_HERE = Path(__file__).parent
_FOLDER = _HERE if (_HERE / "dagster.yaml").is_file() else _HERE.parents[1]

INSTANCE = _FOLDER / "dagster.yaml"
"""An instance's configuration: SQLite, a run queue, pools with limits, no telemetry."""
WORKSPACE = _FOLDER / "workspace.yaml"
"""The code location that the UI, the daemon and the command line share."""
