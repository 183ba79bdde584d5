"""What operators look at: health, the consumers of each queue, and the page of pods in Flower."""
