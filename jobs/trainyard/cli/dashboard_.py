"""`trainyard dashboard`."""

import click

from trainyard.cli.cluster import on_cluster
from trainyard.cluster.kubectl import Kubectl


@click.command()
@click.argument("name")
@click.option("--port", default=8265, show_default=True, help="Port on this machine; 0 takes a free one.")
@on_cluster
def command(kubectl: Kubectl, name: str, port: int) -> None:
    """Open the Ray dashboard of a running job on this machine, until Ctrl-C.

    It asks for the job's token, which is printed.
    """
    import base64

    from trainyard.cluster.jobs import no_dashboard, now, token_secret
    from trainyard.cluster.kubectl import ClusterError
    from trainyard.errors import NotFoundError

    job = kubectl.job(name)
    reason = no_dashboard(job, kubectl.pod(name, 0), now())
    if reason is not None:
        raise NotFoundError(f"{name} has no dashboard now. {reason}")
    token = kubectl.get("secret", token_secret(name, job["metadata"]["uid"]))["data"]["token"]
    for line in kubectl.lines("port-forward", f"pod/{name}-0", f"{port or ''}:8265", check=True):
        if line.startswith("Forwarding from 127.0.0.1"):
            click.echo(f"http://{line.split()[2]}")
            click.echo(f"token: {base64.b64decode(token).decode()}", err=True)
    raise ClusterError(f"the forwarding to pod {name}-0 ended: is the job running? trainyard status {name}")
