"""Training: training sets with a manifest, baseline models, metrics and the registry of models."""
