"""Two plain pods form a Ray cluster and train with Trainer: what the operator builds on."""

import json
from typing import Any

from tests.bed.kubectl import apply, kubectl
from tests.cluster.pods import service, trainer_pod

TRAIN = """
import os, ray, ray.train
from ray.train.torch import TorchTrainer

def train(config):
    import torch
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16))
    rows = [{"input_ids": torch.arange(8), "labels": torch.tensor(i % 2)} for i in range(32)]
    arguments = TrainingArguments("/tmp/out", max_steps=3, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True)
    trainer = Trainer(model, arguments, train_dataset=rows)
    trainer.train()
    print("TRAINED", trainer.state.global_step, "of", trainer.args.world_size, "on", os.uname().nodename, flush=True)

ray.init(address="auto")
TorchTrainer(train, scaling_config=ray.train.ScalingConfig(num_workers=2), run_config=ray.train.RunConfig(storage_path="/tmp/ray-results")).fit()
"""
HEAD = (
    "ray start --head --port=6379 --num-cpus=1 --include-dashboard=false --disable-usage-stats && python /code/train.py"
)
WORKER = "until ray start --address=head:6379 --num-cpus=1 --disable-usage-stats; do sleep 0.5; done; sleep infinity"


def test_two_pods_form_a_ray_cluster_and_train(namespace: str, mounted: dict[str, Any]) -> None:
    code = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "code", "namespace": namespace},
        "data": {"train.py": TRAIN},
    }
    extra: dict[str, Any] = {
        "mounts": [{"name": "code", "mountPath": "/code"}],
        "volumes": [{"name": "code", "configMap": {"name": "code"}}],
    }
    token = [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "value": "0" * 64}]
    head, worker = (
        trainer_pod(
            namespace,
            name,
            ["sh", "-c", script],
            mounted,
            nodeName=node,
            container={"env": token},
            **json.loads(json.dumps(extra)),
        )
        for name, script, node in (("head", HEAD, "node-1"), ("worker", WORKER, "node-2"))
    )
    apply(code, service(namespace, "head"), head, worker)
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    kubectl("wait", "pod/head", "--namespace", namespace, ended, "--timeout=120s", timeout=125)
    told = kubectl("--namespace", namespace, "logs", "head")
    assert {line.split("TRAINED ")[1] for line in told.splitlines() if "TRAINED" in line} == {
        "3 of 2 on head",
        "3 of 2 on worker",
    }
