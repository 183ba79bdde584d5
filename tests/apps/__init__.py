"""Celery applications that tests start as a user would."""
