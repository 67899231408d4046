"""`trainyard ckpt`."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from trainyard import extras
from trainyard.checkpoint.attempts import newest_number
from trainyard.checkpoint.catalogue import (
    Checkpoint,
    committed,
    is_there,
    list_checkpoints,
    none_committed,
    read_manifest,
)
from trainyard.cli.cluster import on_cluster, open_run
from trainyard.cli.output import format_option, human_size, print_json, print_table
from trainyard.cli.runs import is_named
from trainyard.cluster.kubectl import Kubectl
from trainyard.errors import DiskFullError, JobError, NotFoundError, StorageError
from trainyard.storage import layout
from trainyard.storage.layout import CheckpointId
from trainyard.storage.store import Store

_TIMES = ("_runtime", "_per_second")
_checkpoint = click.argument("checkpoint", required=False)


@click.group()
def command() -> None:
    """Look at the checkpoints of a run, verify, fetch, make and delete them.

    RUN is a manifest, a run's folder, its URI, or the name of a job on a cluster: its storage is read with the
    credentials of this machine. CHECKPOINT is a name that `ckpt ls` shows; without it the newest
    committed one is meant.
    """


@command.command()
@click.argument("run", metavar="RUN")
@format_option("table", "json", "name")
@on_cluster
def ls(kubectl: Kubectl, run: str, output: str) -> None:
    """List the checkpoints of a run.

    STATE is one of: Committed (it was whole when it was committed; `ckpt verify` reads whether it still is; a run
    resumes from the newest), Incomplete (no manifest yet: it is being written or deleted, or its writer died),
    Superseded (a later attempt resumed from another checkpoint), SetAside (quarantined: not as it was committed, for
    the reason under METRICS; its files stay, and a run uses it again when its set-aside.json is deleted).
    """
    store = open_run(kubectl, run)
    found = list_checkpoints(store)
    if not found:
        raise NotFoundError(f"{store.url()} has no checkpoints")
    if output == "name":
        for checkpoint in found:
            click.echo(checkpoint.id)
        return
    rows = [_row(store, checkpoint) for checkpoint in found]
    if output == "json":
        print_json(rows)
    else:
        headings = ("NAME", "STEP", "ATTEMPT", "STATE", "SIZE", "COMMITTED", "METRICS")
        print_table(headings, [[_cell(row, heading.lower()) for heading in headings] for row in rows])


@command.command()
@click.argument("run", metavar="RUN")
@_checkpoint
@click.option("--all", "every", is_flag=True, help="Every committed checkpoint.")
@format_option("table", "json")
@on_cluster
def verify(kubectl: Kubectl, run: str, checkpoint: str | None, every: bool, output: str) -> None:
    """Read every file of a checkpoint and compare it with the digests it was committed with.

    Nothing is changed. Exit code 7 when a file is missing or differs, 5 when a later version of trainyard wrote it.
    """
    from trainyard.checkpoint.transfer import CorruptCheckpointError
    from trainyard.checkpoint.transfer import verify as verify_files

    store = open_run(kubectl, run)
    found = list_checkpoints(store)
    wanted = committed(found) if every else [_find(store, found, checkpoint)]
    rows, corrupt = [], False
    unknown: JobError | None = None
    for identity in wanted:
        try:
            manifest = read_manifest(store, identity)
            verify_files(store, manifest, identity.folder)
            said = f"{len(manifest.files)} files, {human_size(manifest.size)}"
            rows.append({"name": str(identity), "result": "OK", "detail": said})
        except (CorruptCheckpointError, NotFoundError, ValueError) as error:
            if isinstance(error, NotFoundError) or not is_there(store, identity):
                if every:
                    continue  # retention has taken it since it was listed
                raise NotFoundError(f"{identity} is not committed any more: retention has taken it") from error
            corrupt = True
            rows.append({"name": str(identity), "result": "Corrupt", "detail": str(error)})
        except JobError as error:
            unknown = error
            rows.append({"name": str(identity), "result": "Unknown", "detail": str(error)})
    if not rows:
        raise NotFoundError(none_committed(store, found))
    if output == "json":
        print_json(rows)
    else:
        print_table(("NAME", "RESULT", "DETAIL"), [list(row.values()) for row in rows])
    if corrupt:
        raise StorageError("a run goes on from its newest whole checkpoint; `trainyard ckpt rm` deletes a corrupt one")
    if unknown is not None:
        raise unknown


@command.command()
@click.argument("run", metavar="RUN")
@_checkpoint
@click.option("--to", "target", type=click.Path(path_type=Path), default=Path(), help="Where its folder is made.")
@click.option("--as-trainer", is_flag=True, help="As plain Trainer writes it: for resume_from_checkpoint without us.")
@on_cluster
def pull(kubectl: Kubectl, run: str, checkpoint: str | None, target: Path, as_trainer: bool) -> None:
    """Fetch a checkpoint, verified, into a folder `checkpoint-N`, and print its path.

    It holds no pickle: resumeFrom takes it as it is, and plain Trainer what --as-trainer makes of it.
    """
    from trainyard.checkpoint.transfer import CorruptCheckpointError, download

    if as_trainer:
        extras.need("train", "--as-trainer")
    store = open_run(kubectl, run)
    identity = _find(store, list_checkpoints(store), checkpoint)
    folder = target / f"checkpoint-{identity.step}"
    if folder.exists():
        raise click.UsageError(f"{folder} exists; remove it, or name another folder with --to")
    partial = target / f".{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    made = not target.exists()
    try:
        download(store, read_manifest(store, identity), identity.folder, partial)
        if as_trainer:
            from trainyard.train.convert import as_trainer as convert

            convert(partial)
        partial.rename(folder)
    except (CorruptCheckpointError, ValueError) as error:
        fix = "pull an older one (trainyard ckpt verify --all tells which are whole)"
        raise StorageError(f"{identity} is damaged: {error}. Fix: {fix}") from error
    except (OSError, RuntimeError, DiskFullError) as error:
        # Of torch a full disk is a RuntimeError, and what it tells goes on for lines; ours names another fix.
        told = "no space left" if isinstance(error, DiskFullError) else str(error).partition("\n")[0]
        fix = "name a folder with --to that can be written and has room"
        raise StorageError(f"cannot write {folder}: {told}. Fix: {fix}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if made:
            with suppress(OSError):  # it holds what was asked for, or what somebody else has put there
                target.rmdir()
    click.echo(folder)


@command.command()
@click.argument("run", metavar="RUN")
@click.argument("checkpoint")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@on_cluster
def rm(kubectl: Kubectl, run: str, checkpoint: str, yes: bool) -> None:
    """Delete a checkpoint from storage. One that its run may be saving at this moment is left."""
    from trainyard.checkpoint.retain import remove

    store = open_run(kubectl, run)
    found = list_checkpoints(store)
    identity = _find(store, found, checkpoint, whole=False)
    if not is_there(store, identity) and _goes_on(store, identity.attempt):
        raise click.UsageError(f"{identity} is being saved, or its run was killed; the next run sweeps what is left")
    if [identity] == committed(found):
        click.echo(f"{identity} is the only committed checkpoint: without it the run starts anew", err=True)
    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete {identity} of {store.url()}?", abort=True, err=True)
    remove(store, identity)
    click.echo(f"{identity} deleted", err=True)


@command.command()
@click.argument("run", metavar="RUN")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait for the commit.")
@on_cluster
def save(kubectl: Kubectl, run: str, timeout: float) -> None:
    """Have a run that goes on save a checkpoint now, and print its name when it is committed."""
    from trainyard.launch import savenow

    store = open_run(kubectl, run)
    asked = savenow.ask_here(store, timeout) if is_named(run) else savenow.ask_pod(store, kubectl, run, timeout)
    click.echo(asked)


def _find(store: Store, found: list[Checkpoint], name: str | None, whole: bool = True) -> CheckpointId:
    """The checkpoint of a name, or the newest committed one. Raises NotFoundError, also for one that is not whole."""
    if name is None:
        newest = committed(found)
        if not newest:
            raise NotFoundError(none_committed(store, found))
        return newest[0]
    for each in found:
        if str(each.id) == name or (name.isdigit() and each.id.step == int(name) and each.state == "Committed"):
            if whole and each.state == "Incomplete":
                raise NotFoundError(
                    f"{each.id} was never committed: it is being saved, or its run was killed meanwhile"
                )
            return each.id
    known = ", ".join(f"{each.id} ({each.state})" for each in found) or "none"
    raise NotFoundError(f"{store.url()} has no checkpoint {name}; there are: {known}")


def _goes_on(store: Store, attempt: int) -> bool:
    """Whether an attempt is the newest, and nothing tells that it has ended."""
    return attempt == newest_number(store) and not store.exists(layout.attempt_end_path(attempt))


def _row(store: Store, checkpoint: Checkpoint) -> dict[str, Any]:
    """What is known of a checkpoint, its size in bytes."""
    committed_at, metrics, reason = "", dict[str, float](), checkpoint.reason
    if checkpoint.state == "Committed":
        try:
            manifest = read_manifest(store, checkpoint.id)
            committed_at, metrics = manifest.created_at, manifest.metrics
        except (ValueError, JobError, NotFoundError) as error:
            reason = str(error)
    return {
        "name": str(checkpoint.id),
        "step": checkpoint.id.step,
        "attempt": checkpoint.id.attempt,
        "state": checkpoint.state,
        "size": checkpoint.size,
        "committed": committed_at,
        "metrics": metrics,
        "reason": reason,
    }


def _cell(row: dict[str, Any], name: str) -> object:
    """What the table shows of it for a person: of the metrics the loss and an evaluation's, without its times."""
    if name == "size":
        return human_size(row[name])
    if name != "metrics":
        return row[name]
    shown = {each: value for each, value in row[name].items() if each == "loss" or each.startswith("eval_")}
    told = " ".join(f"{each}={value:.4g}" for each, value in shown.items() if not each.endswith(_TIMES))
    return row["reason"] or told
