"""charts/trainyard/README.md: each value of the chart with its words, from the comments of values.yaml."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

_LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):(?: (?P<value>.+))?$")
_INTRO = """# The chart

<!-- Written by `make generate` from values.yaml. -->

Installs the operator, the TrainerJob CRD, its roles and its certificates. Needs Kubernetes ≥ 1.31.

```sh
helm install trainyard charts/trainyard --namespace trainyard-system --create-namespace \\
  --set operator.image=registry.example/trainyard-operator:0.1.0 \\
  --set trainer.image=registry.example/trainyard-trainer:0.1.0
```

A value that does not exist is refused (`values.schema.json`). The CRD stays when the chart is uninstalled, so that no
job is lost by it; `helm upgrade` brings a new one. `helm uninstall` also leaves the Secret `trainyard-operator-ca`.

The operator gets, lists and watches no Secret but its own. It writes two for each job and never looks at them.
Kubernetes answers a patch with the whole object, so whoever holds the operator's service account could still read
Secrets: `rbac.clusterWide=false` keeps that to one namespace.

`helm template … | kubectl apply -f -`, Argo CD and Flux give the same objects each time, and jobs that run do not
notice. The operator makes its certificates itself. A job's Ray token is made once, in a Secret of the job. When the
certificate authority changes, the operator writes the new one beside the old one into the Secrets of running jobs,
and serves the new certificate three minutes later, when all pods have read both.

| value | default | |
|---|---|---|
"""


def readme(values: Path) -> str:
    """The page."""
    rows = [f"| `{path}` | `{default}` | {words} |" for path, default, words in _documented(values.read_text("utf-8"))]
    return _INTRO + "\n".join(rows) + "\n"


def _documented(text: str) -> Iterator[tuple[str, str, str]]:
    """(path, default, words) of each value that has a comment; a value without one is a mistake."""
    parents: list[str] = []
    words: list[str] = []
    for line in text.splitlines():
        comment = line.strip()
        if comment.startswith("#"):
            words = [*words, comment.removeprefix("# -- ").removeprefix("# ")]
            continue
        found = _LINE.match(line)
        if not found:
            raise ValueError(f"values.yaml: {line!r} is neither a value nor a comment")
        depth = len(found["indent"]) // 2
        parents = [*parents[:depth], found["key"]]
        if words:
            value = found["value"] or yaml.safe_dump(_at(text, parents), default_flow_style=True).strip()
            yield ".".join(parents), value, " ".join(words)
        elif found["value"] and not (len(parents) > 2):  # deeper: inside a value that has words
            raise ValueError(f"values.yaml: {'.'.join(parents)} has no words: write # -- above it")
        words = []


def _at(text: str, path: list[str]) -> object:
    value = yaml.safe_load(text)
    for key in path:
        value = value[key]
    return value
