"""One client moving a folder to or from the store, measured from within: what bench.upload and bench.restore start.

    python -m bench.transfer_client CLIENT upload|download FOLDER PREFIX

Prints JSON: wall seconds and CPU seconds of the transfer alone (imports and the client's making apart), and the
process's largest RSS in bytes. Credentials and the endpoint come from AWS_*.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

BUCKET = "bench"
Transfer = Callable[[], object]


def ours(verb: str, folder: Path, prefix: str) -> Transfer:
    """The uploader's and the restore's own functions; a download is verified by its manifest."""
    from trainyard.checkpoint.manifest import FileEntry, Manifest
    from trainyard.checkpoint.transfer import download, folder_files, upload
    from trainyard.storage.store import open_store

    store = open_store(f"s3://{BUCKET}")
    if verb == "upload":
        return lambda: upload(store, prefix, folder_files(folder))
    rows = json.loads(folder.with_suffix(".json").read_text())
    entries = tuple(FileEntry(row["path"], row["size"], row["sha256"]) for row in rows)
    manifest = Manifest(1, 1, 1, "ddp", 8, entries, {})
    return lambda: download(store, manifest, prefix, folder)


def pyarrow(verb: str, folder: Path, prefix: str) -> Transfer:
    """pyarrow.fs.copy_files, with its threads."""
    from pyarrow import fs

    s3 = _filesystem()
    if verb == "upload":
        return lambda: fs.copy_files(str(folder), f"{BUCKET}/{prefix}", destination_filesystem=s3)
    return lambda: fs.copy_files(f"{BUCKET}/{prefix}", str(folder), source_filesystem=s3)


def ray(verb: str, folder: Path, prefix: str) -> Transfer:
    """What Ray Train does with a checkpoint: its upload, and Checkpoint.as_directory."""
    from ray.train import Checkpoint
    from ray.train._internal.storage import _upload_to_fs_path

    s3 = _filesystem()
    if verb == "upload":
        return lambda: _upload_to_fs_path(str(folder), s3, f"{BUCKET}/{prefix}")

    def bring() -> None:
        with Checkpoint(f"{BUCKET}/{prefix}", s3).as_directory():
            pass

    return bring


def boto3(verb: str, folder: Path, prefix: str) -> Transfer:
    """boto3's TransferManager with its default ten threads."""
    import boto3 as sdk
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    client = sdk.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])

    def move() -> None:
        with create_transfer_manager(client, TransferConfig()) as manager:
            if verb == "upload":
                files = [file for file in folder.rglob("*") if file.is_file()]
                waits = [manager.upload(str(file), BUCKET, f"{prefix}/{file.relative_to(folder)}") for file in files]
            else:
                pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
                keys = [row["Key"] for page in pages for row in page["Contents"]]
                waits = [manager.download(BUCKET, key, str(folder / Path(key).name)) for key in keys]
            for each in waits:
                each.result()

    return move


def _filesystem() -> object:
    from pyarrow import fs

    return fs.S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"], secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=os.environ["AWS_ENDPOINT_URL"], allow_bucket_creation=True, region="us-east-1",
    )  # fmt: skip


def main(client: str, verb: str, folder: str, prefix: str) -> None:
    """Move, and print what it took."""
    clients = {"ours": ours, "pyarrow": pyarrow, "ray": ray, "boto3": boto3}
    transfer = clients[client](verb, Path(folder), prefix)
    wall, cpu = time.perf_counter(), time.process_time()
    transfer()
    took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps(took | {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
