"""What runs inside a pod: `python -m dispatcher.pod`. Imports Celery and light modules alone."""
