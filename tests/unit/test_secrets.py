"""Credentials are refused by whatever door they come, and no value of a variable leaves the cluster."""

import json
from typing import Any

import pytest

from tests.conftest import manifest
from trainyard.launch import runfile
from trainyard.spec.manifest import loads
from trainyard.spec.secrets import MASK, literal_secrets, masked
from trainyard.storage import layout
from trainyard.storage.store import open_store


def container(**variable: object) -> dict[str, Any]:
    """A template whose container has one environment variable."""
    return {"spec": {"containers": [{"name": "trainer", "env": [variable]}]}}


def refusals(**changes: object) -> dict[str, str]:
    problems = literal_secrets(manifest(**changes))
    return {".".join(map(str, problem.path[1:])): problem.message for problem in problems}


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD", "GITHUB_PAT",
        "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_KEY", "COMET_API_KEY", "CLIENT_SECRET", "SSH_PRIVATE_KEY",
    ],
)  # fmt: skip
def test_credential_in_template_env_is_refused(name: str) -> None:
    problems = refusals(workers={"template": container(name=name, value="literal")})
    assert set(problems) == {"workers.template.spec.containers.0.env.0.value"}
    (message,) = problems.values()
    assert f"{{name: {name}, valueFrom: {{secretKeyRef: {{name: my-secret, key: {name}}}}}}}" in message
    assert "literal" not in message.replace("literal values", "")


@pytest.mark.parametrize(
    "variable",
    [
        {"name": "WANDB_API_KEY", "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "WANDB_API_KEY"}}},
        {"name": "TOKENIZERS_PARALLELISM", "value": "false"},
        {"name": "WANDB_PROJECT", "value": "bbc"},
        {"name": "MAX_TOKENS", "value": "100"},
        {"name": "PATH", "value": "/usr/bin"},
        {"name": "WANDB_API_KEY", "value": ""},
    ],
    ids=lambda variable: str(list(variable.values())[:2]),
)
def test_plain_variable_in_template_env_passes(variable: dict[str, object]) -> None:
    assert refusals(workers={"template": container(**variable)}) == {}


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ({"path": "t.py", "env": {"WANDB_API_KEY": "abc"}}, "script.env.WANDB_API_KEY"),
        ({"path": "t.py", "args": ["--hub_token=abc"]}, "script.args.0"),
        ({"path": "t.py", "args": ["--hub-token", "abc"]}, "script.args.1"),
    ],
    ids=["env", "option=", "option"],
)
def test_credential_of_script_is_refused(script: dict[str, object], path: str) -> None:
    problems = refusals(script=script)
    assert set(problems) == {path}
    assert "secretKeyRef" in problems[path]
    assert "abc" not in problems[path]


def test_option_of_script_that_is_no_credential_passes() -> None:
    args = ["--use_auth_token", "--tokenizer_name", "m", "--max_tokens", "5", "--token_type=bio"]
    assert refusals(script={"path": "t.py", "args": args}) == {}


@pytest.mark.parametrize("name", ["pad_token", "mask_token", "eos_token", "bos_token", "unk_token", "image_token"])
@pytest.mark.parametrize("place", ["processor.call", "model.config"])
def test_special_token_is_no_secret(name: str, place: str) -> None:
    part, field = place.split(".")
    written: dict[str, Any] = {field: {name: "<|end|>"}}
    assert refusals(**{part: {**written, "source": "./m"}}) == {}


@pytest.mark.parametrize("name", ["token", "hub_token", "auth_token", "api_token", "api_key", "password"])
def test_credential_in_model_config_is_refused(name: str) -> None:
    assert set(refusals(model={"source": "./m", "config": {name: "abc"}})) == {f"model.config.{name}"}


def test_no_variable_is_in_what_is_shared() -> None:
    template = container(name="WANDB_PROJECT", value="private-project")
    template["spec"]["initContainers"] = [{"name": "first", "env": [{"name": "A", "value": "private-too"}]}]
    written = manifest(workers={"template": template}, script={"path": "t.py", "env": {"B": "private-three"}})
    before = json.dumps(written)
    text = json.dumps(masked(written))
    assert "private" not in text
    assert text.count(MASK) == 3
    assert json.dumps(written) == before


def test_run_file_masks_variables(tmp_path: Any) -> None:
    job = loads(json.dumps(manifest(workers={"template": container(name="A", value="private")}))).job
    store = open_store(str(tmp_path))
    runfile.write(store, job.model_dump(by_alias=True, mode="json", exclude_unset=True), {}, {})
    assert b"private" not in store.get(layout.RUN)
