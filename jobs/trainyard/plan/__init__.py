"""What a job will do: batch arithmetic, strategy, memory, cadence. Every choice is a value with its reason.

Pure functions over the manifest and a few facts (rows, parameters, memory). No torch, no ray.
"""
