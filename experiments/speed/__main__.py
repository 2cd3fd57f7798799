"""`python -m experiments.speed`: the command where tyro, tensorflow-datasets and grain are not."""

import sys

from experiments.speed.command import main

sys.exit(main())
