"""Step ⑤: the launch is claimed, the pod created or adopted, and what follows from each error of a create."""
