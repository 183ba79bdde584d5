"""The node: pods as processes of this user, and what their status says. What a fault does to a pod is injected."""
