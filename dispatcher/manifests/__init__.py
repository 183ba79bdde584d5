"""Step ④: template, profile and override become the manifest of a pod. Pure: no I/O, no clock."""
