"""What a job says: the manifest's models, its YAML, and the words for every field.

Nothing here imports torch, ray or transformers, so that the command line stays fast and the operator small.
"""
