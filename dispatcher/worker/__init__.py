"""Steps ① and ⑧: the face to Celery. Requests become attempts, outcomes are replayed through the tracer of Celery."""
