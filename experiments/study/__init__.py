"""Studies: many trainings of one problem, compared with intervals."""
