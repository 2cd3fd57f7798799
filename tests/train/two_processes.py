"""One of several processes that train together: `python -m tests.train.two_processes RANK ...`.

Prints nothing but, from rank 0, where it saved what it trained to.
"""

import os
import sys


def main(rank: int, processes: int, address: str, out: str) -> None:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        address, processes, rank, initialization_timeout=60, local_device_ids=None
    )
    import numpy as np

    from jmtl.train.parallel import shell
    from tests.train.toy import MLP, numbers, train

    assert jax.device_count() == 2 * processes
    on_all = shell("jit")
    for streamed in (False, True):
        trained = train(on_all, MLP, streamed=streamed)
        found = numbers(trained)
        found["losses"] = np.asarray(trained.metrics.losses)
        np.savez(f"{out}/{'streamed' if streamed else 'resident'}-{rank}.npz", **found)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
