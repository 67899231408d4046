"""The control plane: etcd, API server, controllers, scheduler, kube-proxy and DNS on this machine."""

import ssl
import subprocess
import urllib.request
from pathlib import Path

from tests.bed import daemons
from tests.bed.home import API_PORT, DNS_SERVICE, DOMAIN, HOST, NETWORK, SERVICES, STATE
from tests.bed.kubectl import apply, kubectl
from tests.bed.pki import CA, Authority

_ETCD = "http://127.0.0.1:23790"
_ETCD_PEER = "http://127.0.0.1:23800"
_DNS_READY = f"{HOST}:8181"
_THRIFTY = {"GOGC": "400"}
"""Go's garbage collector takes a fifth of an API server's time; here is more memory than there are cores."""
_HEALTH = {
    "kube-controller-manager": f"https://{HOST}:10257/healthz",
    "kube-scheduler": f"https://{HOST}:10259/healthz",
    "kube-proxy": f"http://{HOST}:10256/livez",
    "coredns": f"http://{_DNS_READY}/ready",
}
"""Where what has no other sign says that it works."""


def up(programs: Path, authority: Authority) -> None:
    """Start what is not running, and wait until the API server answers."""
    _etcd(programs)
    _api_server(programs, authority)
    _controllers(programs, authority)
    _dns(programs, authority)


def wait() -> None:
    """Wait until every part works; kube-proxy does when its node is there. Raises BedError with the last lines."""
    for name, url in _HEALTH.items():
        daemons.wait(name, "control plane", lambda url=url: _answers(url))


def _etcd(programs: Path) -> None:
    data = STATE / "etcd"
    if daemons.running("etcd") is None and not data.is_mount():
        # In memory: what etcd writes ahead costs the kernel a tenth of the control plane's time on a disk.
        data.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0700", "tmpfs", str(data)], check=True)
    command = [
        programs / "etcd", f"--data-dir={data}", "--unsafe-no-fsync", "--log-level=warn",
        f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}", f"--listen-peer-urls={_ETCD_PEER}",
        f"--initial-advertise-peer-urls={_ETCD_PEER}", f"--initial-cluster=default={_ETCD_PEER}",
        "--quota-backend-bytes=4294967296", "--auto-compaction-retention=5m",
    ]  # fmt: skip
    daemons.start("etcd", command, _THRIFTY)


def _api_server(programs: Path, authority: Authority) -> None:
    cert, key = authority.api_server()
    client, client_key = authority.issue("api-server-kubelet-client", group="system:masters")
    service_accounts = authority.service_accounts()
    command = [
        programs / "kube-apiserver", f"--etcd-servers={_ETCD}", f"--advertise-address={HOST}", f"--bind-address={HOST}",
        f"--secure-port={API_PORT}", f"--service-cluster-ip-range={SERVICES}", "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction", "--allow-privileged", f"--client-ca-file={CA}",
        f"--tls-cert-file={cert}", f"--tls-private-key-file={key}", f"--kubelet-certificate-authority={CA}",
        f"--kubelet-client-certificate={client}", f"--kubelet-client-key={client_key}",
        "--kubelet-preferred-address-types=InternalIP", f"--service-account-key-file={service_accounts}",
        f"--service-account-signing-key-file={service_accounts}",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
    ]  # fmt: skip
    daemons.start("kube-apiserver", command, _THRIFTY)
    authority.kubeconfig("admin", "system:masters")
    daemons.wait("kube-apiserver", "control plane", _api_ready)


def _answers(url: str) -> bool:
    unverified = ssl.create_default_context()  # each has made a certificate of its own
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=2, context=unverified if url.startswith("https") else None) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _api_ready() -> bool:
    try:
        return kubectl("get", "--raw", "/readyz", timeout=5) == "ok"
    except subprocess.SubprocessError:
        return False


def _controllers(programs: Path, authority: Authority) -> None:
    # Client-side limits off: one machine, and benchmarks of other things must not meet them.
    limits = ["--kube-api-qps=1000", "--kube-api-burst=2000"]
    manager = [
        programs / "kube-controller-manager", *limits, "--leader-elect=false", "--use-service-account-credentials",
        f"--kubeconfig={authority.kubeconfig('system:kube-controller-manager')}", f"--root-ca-file={CA}",
        f"--service-account-private-key-file={authority.service_accounts()}", f"--bind-address={HOST}",
        # Half of Kubernetes' own: a test that loses a node waits for it.
        "--node-monitor-grace-period=25s",
    ]  # fmt: skip
    daemons.start("kube-controller-manager", manager, _THRIFTY)
    scheduler = [
        programs / "kube-scheduler", *limits, "--leader-elect=false", f"--bind-address={HOST}",
        f"--kubeconfig={authority.kubeconfig('system:kube-scheduler')}",
    ]  # fmt: skip
    daemons.start("kube-scheduler", scheduler)
    proxy = [
        programs / "kube-proxy", f"--kubeconfig={authority.kubeconfig('system:kube-proxy')}", "--proxy-mode=iptables",
        # Writing the kernel's connection limits needs rights that a container may not have.
        "--conntrack-max-per-core=0", f"--cluster-cidr={NETWORK}", "--hostname-override=node-1",
        f"--bind-address={HOST}", f"--metrics-bind-address={HOST}:10249", f"--healthz-bind-address={HOST}:10256",
    ]  # fmt: skip
    daemons.start("kube-proxy", proxy)


def _dns(programs: Path, authority: Authority) -> None:
    corefile = STATE / "Corefile"
    # The cache of kubeadm's own Corefile: none for names of the cluster, which move.
    corefile.write_text(f"""\
.:53 {{
    bind {HOST}
    errors
    ready {_DNS_READY}
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {authority.kubeconfig("system:coredns", "system:masters")}
        pods insecure
    }}
    cache 30 {{
        disable success {DOMAIN}
        disable denial {DOMAIN}
    }}
}}
""")
    daemons.start("coredns", [programs / "coredns", "-conf", corefile])
    port = {"name": "dns", "port": 53, "protocol": "UDP"}
    tcp = {"name": "dns-tcp", "port": 53, "protocol": "TCP"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": DNS_SERVICE, "ports": [port, tcp]},
    }
    # Without a selector nobody fills in the addresses: DNS runs on this machine, not in a pod.
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [HOST]}],
        "ports": [port, tcp],
    }
    apply(service, endpoints)
