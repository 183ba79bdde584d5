"""The attempts in flight: their states and moves, what they wait for, and their rows in the table of pods."""
