"""Commands that report on a deployment."""
