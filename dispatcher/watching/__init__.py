"""Step ⑥: pods are listed and followed, deadlines kept, lost and orphaned pods found; and the controller."""
