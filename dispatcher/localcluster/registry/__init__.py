"""The rules of an API server: what an object must be, what is filled in, what is deleted when. No HTTP, no process."""
