"""What runs in a Celery worker, and by the same code in a pod: `routing.run`, the app, its heartbeat, task logs."""
