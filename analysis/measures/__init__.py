"""Arrays in, numbers out: each measure usable alone, while a family trains and afterwards."""
