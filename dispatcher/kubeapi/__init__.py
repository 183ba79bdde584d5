"""The one door to the API server: connection, calls, and what this dispatcher is allowed to do."""
