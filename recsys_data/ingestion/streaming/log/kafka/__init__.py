"""The event log as a topic of Apache Kafka, for any number of machines."""
