"""Topics of the broker that .ci/run starts."""

from uuid import uuid4

from recsys_data_tests.support.servers import url_of


def topic_url(options: str = "create=true") -> str:
    """The URL of a topic that nobody else uses."""
    return f"kafka://{url_of('RECSYS_TEST_KAFKA')}/test-{uuid4().hex}?{options}"
