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
    meta = kubectl.job(name)["metadata"]
    own = (name, f"{name}-")
    found = [
        event for event in kubectl.get("events")["items"]
        if event["involvedObject"].get("uid") == meta["uid"]
        or (event["involvedObject"]["kind"] == "Pod" and _is_pod_of(event["involvedObject"]["name"], own[1]))
    ]  # fmt: skip
    found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
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


def _is_pod_of(pod: str, prefix: str) -> bool:
    return pod.startswith(prefix) and pod.removeprefix(prefix).isdigit()
