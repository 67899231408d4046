"""The sources that a manifest names: what must be where the training processes are."""

from trainyard.spec.model import Spec


def named(spec: Spec) -> dict[tuple[str, ...], str]:
    """What is read from elsewhere, as written, by its path in the manifest; what is not given is left out."""
    data, evaluation = spec.data, spec.data.evaluation if spec.data else None
    sources = {
        ("spec", "model", "source"): spec.model.source if spec.model else None,
        ("spec", "processor", "source"): spec.processor.source,
        ("spec", "data", "train", "source"): data.train.source if data else None,
        ("spec", "data", "evaluation", "source"): evaluation.source if evaluation else None,
        ("spec", "code"): spec.code,
        ("spec", "resumeFrom"): spec.resume_from,
    }
    return {path: source for path, source in sources.items() if source}
