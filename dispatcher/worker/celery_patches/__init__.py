"""Where we change what Celery and kombu do inside this process; each patch names what it relies on."""
