"""How a model trains: processor, data, model, trainer, evaluation and export, in that order.

Nothing here knows whether it runs on a laptop or in a pod.
"""
