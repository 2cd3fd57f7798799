"""Training: state, step, shells around the step, loop, evaluation, checkpoints, records."""
