"""Step ⑦: the result of an ended pod is read, its log saved, and the pod cleaned up."""
