"""What is never lost: checkpoints that are committed whole, verified before use, and found again by lineage.

The commit protocol, in order: each rank stages its part on its node; when all of a node's are whole its uploader
sends them, digested on the way, with a list of them; when every node's list is in, `manifest.json` is written. A folder
without it is not a checkpoint.
"""
