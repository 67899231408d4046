"""The operator: how TrainerJobs run on Kubernetes."""
