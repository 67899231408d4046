"""The manifest as pydantic models. A field's docstring is its help: `trainyard explain`, `kubectl explain`,
the JSON Schema for editors and docs/manifest.md all show the words written here.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from trainyard.spec import patterns
from trainyard.spec.urls import is_bucket
from trainyard.spec.values import (
    ClassName,
    Cpus,
    Encoding,
    Float,
    Foreign,
    Int,
    Name,
    Quantity,
    ServerUrl,
    StorageUri,
    TaskName,
    Text,
    Uri,
)

API_VERSION = "trainyard.dev/v1alpha1"
KIND = "TrainerJob"


class Part(BaseModel):
    """A part of the manifest: unknown fields are mistakes, names are camelCase as everywhere in Kubernetes."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


class Metadata(Part):
    """Kubernetes object metadata."""

    model_config = ConfigDict(extra="ignore")

    name: Name
    """Name of the job, and of its folder in storage. Lower-case letters, digits and dashes, at most 50."""
    namespace: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Namespace on a cluster; without meaning for `trainyard run`."""
    labels: dict[str, str] = {}
    """Labels, as on any Kubernetes object."""
    annotations: dict[str, str] = {}
    """Annotations, as on any Kubernetes object."""


class Model(Part):
    """The model that is trained."""

    source: Uri | None = None
    """Where the model comes from: a hub id (`distilbert/distilbert-base-uncased`), a folder
    (`./data/minilm`) or an object-store URI (`s3://bucket/minilm`). May be left out with fromConfig when
    config names a model_type."""
    revision: Text | None = None
    """Branch, tag or commit on the hub. Default: main. Required with trustRemoteCode."""
    class_: ClassName | None = Field(None, alias="class")
    """Class that loads the model: an Auto class or a concrete one (`BertForSequenceClassification`).
    Default: the Auto class of the task."""
    config: Foreign = {}
    """Overrides of the model's Config, in its own words (`hidden_dropout_prob: 0.1`)."""
    load: Foreign = {}
    """Arguments of its from_pretrained, verbatim (`{attn_implementation: sdpa, dtype: bfloat16}`)."""
    from_config: bool = False
    """Build the model from its Config alone, with random weights: training from scratch."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you have read that code; needs revision."""

    @model_validator(mode="after")
    def _has_origin(self) -> "Model":
        if self.source is None and not (self.from_config and "model_type" in self.config):
            raise ValueError("give source; or fromConfig: true and config: {model_type: …} to train from scratch")
        return self

    @model_validator(mode="after")
    def _pinned_code(self) -> "Model":
        if self.trust_remote_code and not self.revision:
            raise ValueError(
                "trustRemoteCode runs code of the model's author; pin what you read with revision: <commit>"
            )
        return self


class Processor(Part):
    """Tokenizer, image processor, feature extractor or processor."""

    source: Uri | None = None
    """Where it comes from, as model.source. Default: model.source."""
    revision: Text | None = None
    """Branch, tag or commit on the hub. Default: model.revision."""
    class_: ClassName | None = Field(None, alias="class")
    """Class that loads it (`AutoTokenizer`, `BertTokenizerFast`, `AutoImageProcessor`). Default: by the task."""
    call: Foreign = {}
    """Arguments of its __call__, verbatim (`{max_length: 128, truncation: true}`). Padding is the collator's work."""
    load: Foreign = {}
    """Arguments of its from_pretrained, verbatim (`{pad_token: <pad>, add_prefix_space: true}`). The model gets
    new embeddings for added tokens."""


class DataSet(Part):
    """How a data set is read."""

    format: Literal["json", "csv", "parquet", "datasets", "hub"] | None = None
    """How to read it. Default: by the file's ending: .jsonl, .json, .csv, .tsv or .parquet, also with .gz, .bz2, .xz or
    .zst behind it."""
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = None
    """What stands between the cells of a CSV file. Default: a comma, in a .tsv file a tab."""
    encoding: Encoding | None = None
    """Encoding of a text file (`cp949`, `utf-16`). Default: what its byte order mark says, else utf-8."""
    name: Text | None = None
    """Configuration of a hub data set (`mrpc` of `glue`)."""
    split: Text | None = None
    """Split of a hub data set or of a `datasets` folder. Default: train, or validation or test for evaluation."""
    revision: Text | None = None
    """Branch, tag or commit of a hub data set."""
    columns: dict[str, Text] = {}
    """Which column plays which part: `{text: body, label: category}`. `trainyard explain data.train.columns`
    lists the parts of each task. Default: columns named like the parts; for evaluation those of data.train."""
    max_samples: Annotated[Int, Field(ge=1)] | None = None
    """Use at most this many rows, from the first."""


class Source(DataSet):
    """The training data."""

    source: Uri
    """JSON Lines, CSV, TSV or Parquet file, a glob of them, a folder saved by `datasets`, a hub name, or an
    object-store URI of any of these. Text is read as written: only an empty CSV cell is empty."""


class Evaluation(DataSet):
    """The evaluation data: a source of its own, or a fraction split from the training data."""

    source: Uri | None = None
    """A data set of its own, as data.train.source."""
    fraction: Annotated[Float, Field(gt=0, lt=1)] | None = None
    """Part of the training data that is kept for evaluation, between 0 and 1."""
    seed: Annotated[Int, Field(ge=0)] = 42
    """Seed of that split."""

    @model_validator(mode="after")
    def _one_of(self) -> "Evaluation":
        if (self.source is None) == (self.fraction is None):
            raise ValueError("give either source (a data set of its own) or fraction (a part of data.train)")
        return self


class Data(Part):
    """What the model learns from."""

    train: Source
    """The training data."""
    evaluation: Evaluation | None = None
    """The evaluation data. Without it nothing is evaluated."""


class Ddp(Part):
    """DistributedDataParallel: a whole model in each process."""

    config: Foreign = {}
    """Overrides of accelerate's DistributedDataParallelKwargs (`find_unused_parameters: true`)."""


class DeepSpeed(Part):
    """DeepSpeed's ZeRO."""

    zero_stage: Literal[1, 2, 3] = 2
    """What is split over the processes: 1 optimizer state, 2 and gradients, 3 and parameters."""
    config: Foreign = {}
    """A DeepSpeed configuration, verbatim; its keys win over what zeroStage sets."""


class Fsdp(Part):
    """PyTorch's FullyShardedDataParallel 2."""

    config: Foreign = {}
    """transformers' fsdp_config, verbatim (`reshard_after_forward: true`)."""


class Strategy(Part):
    """How the model is spread over the processes: exactly one of ddp, deepspeed and fsdp."""

    ddp: Ddp | None = None
    """A whole model in each process. The default."""
    deepspeed: DeepSpeed | None = None
    """ZeRO: optimizer state, gradients or parameters in parts."""
    fsdp: Fsdp | None = None
    """FullyShardedDataParallel 2. Needs GPUs."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Strategy":
        chosen = [name for name in ("ddp", "deepspeed", "fsdp") if getattr(self, name) is not None]
        if len(chosen) != 1:
            found = " and ".join(chosen) if chosen else "none"
            raise ValueError(f"exactly one strategy is wanted (ddp, deepspeed or fsdp); found {found}")
        return self


class Script(Part):
    """A training script of your own, run unchanged in each training process, as torchrun would."""

    path: Text
    """The script: a path below spec.code, or where you stand, or in the image."""
    args: Annotated[list[Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=256)] = []
    """Its arguments, as on a command line."""
    env: dict[str, Annotated[str, StringConstraints(max_length=4096)]] = {}
    """Environment variables for it. No secrets: their values are refused here. Write them by reference in
    workers.template (`env: [{name: X, valueFrom: {secretKeyRef: {name: my-secret, key: X}}}]`)."""


class CustomTrainer(Part):
    """How the Trainer is built, where transformers' own is not enough."""

    entrypoint: Annotated[str, StringConstraints(pattern=patterns.ENTRYPOINT, max_length=256)]
    """`module:name` in spec.code: a subclass of Trainer, or a function that returns one. It is called with the
    arguments of Trainer (model, args, train_dataset, …) as keywords."""


class Resources(Part):
    """Resources of one worker."""

    cpu: Cpus | None = None
    """CPU cores, a Kubernetes quantity (`4`, `500m`). Training processes take as many threads as are their share."""
    memory: Quantity | None = None
    """Memory, a Kubernetes quantity (`16Gi`)."""


class Workers(Part):
    """The pods of the job, and the training processes in each."""

    count: Annotated[Int, Field(ge=1, le=1024)] = 1
    """Number of workers: pods on a cluster, processes' groups on one machine."""
    processes_per_worker: Annotated[Int, Field(ge=1, le=64)] | None = None
    """Training processes in each worker. Default: gpus, or 1 without GPUs."""
    gpus: Annotated[Int, Field(ge=0, le=64)] = 0
    """GPUs of each worker."""
    spares: Annotated[Int, Field(ge=0, le=64)] = 0
    """On a cluster: further pods of the same kind that wait, warm, to take the place of a lost one at once."""
    resources: Resources = Resources()
    """CPU and memory of each worker on a cluster."""
    template: Foreign = {}
    """Overlay on the pod template, merged as `kubectl patch` does: mappings merge, containers, env and volumes by name,
    volumeMounts by mountPath, and a list without such a key (tolerations, args) is replaced. The container that trains
    is called `trainer`. What breaks how a pod runs (host name, restartPolicy, command, probes that kill) is refused.
    So are credentials that are written out: name a Secret (`env: [{name: X, valueFrom: {secretKeyRef: …}}]`).
    Without meaning for `trainyard run`."""

    @property
    def processes(self) -> int:
        """Training processes in each worker."""
        return self.processes_per_worker or self.gpus or 1

    @property
    def pods(self) -> int:
        """Pods on a cluster: workers and spares."""
        return self.count + self.spares


class Storage(Part):
    """Where runs are kept. A run's folder is <uri>/<job>, on a cluster <uri>/<namespace>/<job>."""

    uri: StorageUri
    """`s3://bucket/prefix`, `gs://…`, `az://…`, `file:///…` or a local path."""
    endpoint: ServerUrl | None = None
    """URL of the storage server, where it is not the provider's own: an S3-compatible server (`http://127.0.0.1:8333`),
    a private endpoint, or an emulator (for Azure with its account: `http://127.0.0.1:10000/account`). Default:
    AWS_ENDPOINT_URL, GOOGLE_BASE_URL or AZURE_STORAGE_ENDPOINT, else the provider's. Sources in buckets of the same
    kind use it, too."""
    region: Text | None = None
    """Region of a bucket of S3. Default: AWS_REGION, or us-east-1."""
    secret: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Name of the Secret with the credentials on a cluster (keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …).
    `trainyard run` takes them from the environment."""

    def endpoint_for(self, uri: str) -> str | None:
        """The endpoint of a source: that of the storage, for buckets of the same kind.

        Where runs are kept in a folder, the endpoint is there for the sources alone.
        """
        kept, read = self.uri.partition("://")[0], uri.partition("://")[0]
        return self.endpoint if kept == read or not is_bucket(self.uri) else None


class Checkpoint(Part):
    """How checkpoints are saved, and which are kept."""

    staging: Literal["Auto", "Memory", "Disk"] = "Auto"
    """Where a worker keeps the checkpoint that is being uploaded. Memory: in /dev/shm, which counts as the worker's
    memory. Disk: on its disk. Auto: in memory where two of them take less than a quarter of what is free."""
    backlog: Literal["Skip", "Wait"] = "Skip"
    """What happens when a save is due and those before are still being uploaded. Skip: it is left out and counted, and
    training goes on. Wait: training waits. The last step, and runs with load_best_model_at_end, always wait."""

    every: Annotated[str, StringConstraints(pattern=patterns.EVERY, max_length=16)] | None = None
    """How often a checkpoint is saved, by time: a duration (`10m`), or Auto: as often as saves cost no more than the
    work that faults are expected to undo (Young and Daly), by what saves are measured to cost. save_steps,
    save_strategy and load_best_model_at_end in trainingArguments win over it. Default: by steps."""
    keep_last: Annotated[Int, Field(ge=1, le=1000)] = 3
    """Newest checkpoints that are kept."""
    keep_best: Annotated[Int, Field(ge=0, le=1000)] = 1
    """Best checkpoints that are kept, by metric_for_best_model."""
    keep_every: Annotated[Int, Field(ge=1)] | None = None
    """Checkpoints of steps that are a multiple of this are kept for ever."""


class Restart(Part):
    """What happens after a fault."""

    max_restarts: Annotated[Int, Field(ge=0, le=100)] = 10
    """Restarts after faults that are not the job's own, within one window; one more fails the job. The
    deletion of a pod (preemption, a drained node, kubectl delete) and the loss of a node are no faults."""
    window_seconds: Annotated[Int, Field(ge=1)] = 3600
    """Seconds of that window: faults before it are forgotten, so that a long run may have many."""
    hang_seconds: Annotated[Int, Field(ge=1)] = 300
    """Seconds without a step after which a run is taken to hang: the stacks of its processes go into their logs, and
    it is restarted. When ten median steps take longer, it is ten median steps. A save and a batch of an evaluation may
    take half an hour. Before the first step the seconds count from the start of each phase, and again whenever a
    process computes, reads or writes. With several pods they are half an hour at least, because a pod does not see the
    others. Waiting for storage has no limit; waiting for a rank that waits for storage has half an hour."""


class Resume(StrEnum):
    """Whether a run goes on from what is in storage."""

    AUTO = "Auto"
    NEVER = "Never"
    REQUIRED = "Required"


BROUGHT_BY_SCRIPT = ("processor", "trainer", "trainingArguments", "strategy", "accelerate")
"""Fields of spec that a manifest with a script must not have."""


class Spec(Part):
    """What is trained, on what, how and where."""

    task: TaskName | None = None
    """The task, by transformers' name: picks the Auto class, the processor, the collator and the metrics. Required
    without script, as are model and data."""
    model: Model | None = None
    """The model that is trained."""
    processor: Processor = Processor()
    """Tokenizer, image processor, feature extractor or processor. Default: the model's."""
    data: Data | None = None
    """What the model learns from."""
    code: Uri | None = None
    """A folder with code of your own (a script, a Trainer), or its object-store URI. It is where a script runs, and
    where its modules are found. `trainyard submit` uploads a local one."""
    script: Script | None = None
    """A training script of your own, instead of task, model and data. It trains one Trainer, once."""
    trainer: CustomTrainer | None = None
    """How the Trainer is built, where transformers' own is not enough."""
    training_arguments: Foreign = {}
    """transformers.TrainingArguments, verbatim. `trainyard explain trainingArguments.<name>` shows each."""
    strategy: Strategy = Strategy(ddp=Ddp())
    """How the model is spread over the processes. Default: ddp."""
    accelerate: Foreign = {}
    """What `accelerate config` writes, verbatim (`mixed_precision: "no"`)."""
    workers: Workers = Workers()
    """The pods of the job, and the training processes in each."""
    storage: Storage = Storage(uri="./runs")
    """Where checkpoints, metrics, logs and the final model are kept. Default: ./runs."""
    checkpoint: Checkpoint = Checkpoint()
    """How checkpoints are saved, and which are kept."""
    restart: Restart = Restart()
    """What happens after a fault."""
    resume_from: StorageUri | None = None
    """A checkpoint of plain Trainer to begin with (a folder `checkpoint-N` or its object-store URI), when the run has
    none of its own yet. Its weights, optimizer, scheduler and step are taken over."""
    resume: Annotated[Resume, Field(strict=False)] = Resume.AUTO
    """Auto: go on from the newest committed checkpoint, if there is one. Never: start anew, once for each TrainerJob
    that is created and each `trainyard run`; checkpoints of before are kept until you delete them, metrics.jsonl and
    final are the new start's. Required: fail if there is none."""
    queue: Annotated[str, StringConstraints(pattern=patterns.QUEUE, max_length=63)] | None = None
    """On a cluster: queue of the gang scheduler that the operator was installed for (Kueue, Volcano, YuniKorn, KAI)."""
    scheduler_name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """On a cluster: scheduler of the pods. Default: the gang scheduler's, or the cluster's."""
    priority_class_name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """On a cluster: PriorityClass of the pods."""
    suspend: bool = False
    """Nothing runs while this is true. On a cluster, setting it saves a checkpoint and frees the pods."""
    active_deadline_seconds: Annotated[Int, Field(ge=1)] | None = None
    """On a cluster: seconds after its start at which a job that has not ended is failed. Default: never."""
    pending_deadline_seconds: Annotated[Int, Field(ge=1)] | None = None
    """On a cluster: seconds that a job may wait for all its workers to run, so that a part of them holds nothing for
    ever; then it is failed with the reason. Default: it waits."""
    ttl_seconds_after_finished: Annotated[Int, Field(ge=0)] | None = None
    """On a cluster: seconds after its end at which a job is deleted, with its pods; storage stays. Default: never."""

    @model_validator(mode="after")
    def _script_or_task(self) -> "Spec":
        described = {"task": self.task, "model": self.model, "data": self.data}
        if self.script is None:
            if missing := [name for name, part in described.items() if part is None]:
                raise ValueError(
                    f"{', '.join(missing)} missing: give task, model and data; or script, for one of your own"
                )
            return self
        given = [name for name, part in described.items() if part is not None]
        written = {to_camel(name) for name in self.model_fields_set}
        given += [name for name in BROUGHT_BY_SCRIPT if name in written]
        if given:
            raise ValueError(f"a script brings its own {', '.join(given)}: remove it here, and use script.args")
        return self


class TrainerJob(Part):
    """A training job: one manifest for `kubectl apply` and `trainyard run`."""

    api_version: Literal["trainyard.dev/v1alpha1"]
    """Always trainyard.dev/v1alpha1."""
    kind: Literal["TrainerJob"]
    """Always TrainerJob."""
    metadata: Metadata
    """Name, labels and annotations."""
    spec: Spec
    """What is trained, on what, how and where."""

    @property
    def name(self) -> str:
        """The job's name."""
        return self.metadata.name
