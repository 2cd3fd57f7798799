"""The conflict dial: where gradient surgery pays as one task is turned against the others."""
