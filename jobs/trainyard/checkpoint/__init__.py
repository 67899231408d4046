"""What is never lost: checkpoints that are committed whole, verified before use, and found again by lineage.

The commit protocol, in order: files are staged on local disk, digested and uploaded; when every node's
list of files is in, `manifest.json` is written. A folder without it is not a checkpoint.
"""
