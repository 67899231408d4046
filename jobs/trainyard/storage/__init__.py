"""Where bytes live: one object store for S3, GCS, Azure and files, and the layout of a run in it."""
