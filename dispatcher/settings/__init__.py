"""Settings of a dispatcher: their table, and the one reader that Celery applications and installations share."""
