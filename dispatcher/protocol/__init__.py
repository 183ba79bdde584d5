"""What travels between the sender of a task, the dispatcher and the pod. No I/O; imports nothing but the root."""
