"""`batch-pipeline services`: the services of the deployment, and what can be done with one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batch_pipeline.cli.deploy import exit_status, report
from batch_pipeline.cli.output import duration, json_option, print_fields, print_json, print_table, say
from batch_pipeline.cli.progress import live_progress

if TYPE_CHECKING:
    from batch_pipeline.orchestration.services import Service


@click.group()
def services() -> None:
    """List, show, stop, run again, describe and delete services."""


@services.command("list")
@click.option("--search", default="", metavar="TEXT", help="Only services whose name contains TEXT.")
@json_option
def list_services(search: str, as_json: bool) -> None:
    """List the services, newest first."""
    from batch_pipeline import api

    found = api.list_services(search=search)
    if as_json:
        print_json([_summary(service) for service in found])
        return
    columns = ("NAME", "STATE", "MODEL", "NODES", "DONE", "STARTED", "TIME", "DESCRIPTION")
    print_table(columns, [_row(service) for service in found], right=("NODES", "DONE", "TIME"))


@services.command("show")
@click.argument("name")
@json_option
def show_service(name: str, as_json: bool) -> None:
    """Show one service: all parameters, where the results are, the error."""
    from batch_pipeline import api

    service = api.show_service(name)
    error = service.error.message if service.error is not None else None
    if as_json:
        print_json({**_summary(service), "parameters": service.parameters, "error": error})
        return
    fields = {key: value for key, value in _summary(service).items() if value not in (None, "")}
    if "seconds" in fields:
        fields["time"] = duration(fields.pop("seconds"))
    fields.pop("nodes", None)  # it is `node_count` among the parameters
    for key, value in (service.parameters or {}).items():
        fields.setdefault(key, value)
    print_fields({**fields, **({"error": error} if error else {})})


@services.command("stop")
@click.argument("name")
def stop_service(name: str) -> None:
    """Stop a service that is deploying or running; what it finished is kept."""
    from batch_pipeline import api

    api.stop_service(name)
    say(f"asked the service {name} to stop")


@services.command("run")
@click.argument("name")
@click.option("--wait", is_flag=True, help="Run the service here and wait for its end.")
@click.option("--overwrite", is_flag=True, help="If something changed since it was run before, start over.")
@json_option
def run_service(name: str, wait: bool, overwrite: bool, as_json: bool) -> int:
    """Run a service again with its recorded parameters; it continues where it stopped."""
    from batch_pipeline.orchestration import services as ours
    from batch_pipeline.orchestration.instance import open_instance

    with open_instance(quiet=wait) as instance, live_progress() as on_progress:
        launched = ours.run_service(instance, name, wait=wait, overwrite=overwrite, on_progress=on_progress)
    report(launched, as_json=as_json)
    return exit_status(launched)


@services.command("describe")
@click.argument("name")
@click.argument("description", metavar="TEXT")
def describe_service(name: str, description: str) -> None:
    """Change the description of a service that is not running."""
    from batch_pipeline import api

    api.describe_service(name, description)
    say(f"described the service {name}")


@services.command("delete")
@click.argument("name")
@click.option("--results", is_flag=True, help="Delete its results, too, and no other objects.")
def delete_service(name: str, results: bool) -> None:
    """Delete the record of a service that is not running."""
    from batch_pipeline import api

    deleted = api.delete_service(name, results=results)
    say(f"deleted the service {name}{f' and {deleted} objects' if results else ''}")


def _summary(service: Service) -> dict[str, Any]:
    return {
        "name": service.name,
        "state": service.state,
        "id": service.run_id,
        "model": service.model or None,
        "nodes": service.nodes,
        "inputs": service.inputs,
        "inputs_done": service.inputs_done,
        "created": service.created.isoformat(timespec="seconds") if service.created else None,
        "started": service.started.isoformat(timespec="seconds") if service.started else None,
        "seconds": round(service.seconds, 3) if service.seconds is not None else None,
        "description": service.description,
        "output_path": service.output_path or None,
    }


def _row(service: Service) -> tuple[object, ...]:
    done = f"{service.inputs_done}/{service.inputs}" if service.inputs is not None else ""
    started = service.started.astimezone().strftime("%Y-%m-%d %H:%M:%S") if service.started else ""
    return (
        service.name,
        service.state,
        service.model,
        service.nodes,
        done,
        started,
        duration(service.seconds),
        service.description,
    )
