"""What to run, and running it: the only room that drives Ray."""
