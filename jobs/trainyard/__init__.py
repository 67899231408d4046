"""Trainyard trains Hugging Face models on a Kubernetes cluster, or on one machine, from one manifest."""

__version__ = "0.1.0"
