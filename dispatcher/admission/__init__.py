"""Step ③: which attempt may create its pod next: limits, queues of waiting attempts, back-pressure, shares."""
