"""Asset checks, alerts and care of the Dagster instance."""
