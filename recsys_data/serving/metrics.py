"""What serving counts for Prometheus, beside what every server that appends to the log does."""

from prometheus_client import Counter, Gauge, Histogram

from recsys_data.ingestion.streaming.collector.middleware import Metrics

DELAYS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 30.0, 60.0)
BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class ServingMetrics(Metrics):
    """The counters of `recsys-data serve`."""

    def __init__(self) -> None:
        super().__init__("serving")
        one = self.registry
        self.answers = Counter("serving_answers", "Answers.", ["scenario", "fallback"], registry=one)
        self.answer_seconds = Histogram(
            "serving_answer_seconds", "Seconds from a request to its answer.", registry=one, buckets=BUCKETS
        )
        self.unanswered = Counter(
            "serving_models_unanswered", "Requests that did without a model, by why.", ["why"], registry=one
        )
        self.lost = Counter(
            "serving_impressions_lost", "Impressions that were answered and could not be logged.", registry=one
        )
        self.refresh_failures = Counter(
            "serving_refresh_failures", "Failures to read something from the lake.", ["what"], registry=one
        )
        self.online_rows_behind = Gauge(
            "serving_online_rows_behind", "Rows in the lake that the online store does not have yet.", registry=one
        )
        self.online_seconds_behind = Gauge(
            "serving_online_seconds_behind",
            "Seconds since the online store followed the lake, if rows wait.",
            registry=one,
        )
        self.event_online_seconds = Histogram(
            "serving_event_online_seconds",
            "Seconds from the receipt of an event until answers use it.",
            registry=one,
            buckets=DELAYS,
        )
        self.event_used_seconds = Histogram(
            "serving_event_used_seconds",
            "Seconds from the receipt of an event to the first answer for its visitor that used it.",
            registry=one,
            buckets=DELAYS,
        )
