"""`trainyard events`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cli.output import format_option, print_json, print_table
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("name")
@format_option("table", "json")
@on_cluster
def command(kubectl: Kubectl, name: str, output: str) -> None:
    """Show what has happened to a job and its pods, the oldest first."""
    from trainyard.cluster.jobs import events_of

    found = events_of(kubectl.job(name), kubectl.get("events")["items"])
    if output == "json":
        print_json(found)
        return
    rows = [
        [
            event.get("lastTimestamp") or event.get("eventTime") or "", event["type"], event["reason"],
            f"{event['involvedObject']['kind'].lower()}/{event['involvedObject']['name']}",
            event.get("message", "").strip(),
        ]
        for event in found
    ]  # fmt: skip
    print_table(("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"), rows)
