"""Where the bed keeps what it builds and what it runs: outside the checkout, one bed a machine."""

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trainyard"
BUILDS = CACHE / "bed"
"""Programs and images, by the hash of what they are made from; kept when the cluster goes down."""
STATE = BUILDS / "cluster"
"""The cluster that is up: certificates, data, logs and process ids; removed when it goes down."""
LOGS = STATE / "logs"
SOURCE = Path(__file__).parent
ROOT = SOURCE.parent.parent

BRIDGE = "trainyard0"
NETWORK = "10.88.0.0/16"
HOST = "10.88.0.1"
"""Address of the bridge: API server, DNS and S3 listen on it, so that pods and this machine reach them alike."""
SERVICES = "10.96.0.0/16"
DNS_SERVICE = "10.96.0.10"
API_PORT = 6443
API = f"https://{HOST}:{API_PORT}"
DOMAIN = "cluster.local"


class BedError(Exception):
    """The bed cannot do what is asked; the message says what to do."""
