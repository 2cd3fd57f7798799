"""One of several processes that train together: `python -m tests.train.two_processes RANK ...`.

Prints nothing. Trains with parameters whole on all devices, and split over each process's two.
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
    import pytest

    from jmtl.train import checkpoint
    from jmtl.train.parallel import shell
    from tests.train.toy import MLP, WIDE, numbers, train

    assert jax.device_count() == 2 * processes
    for name, encoder, on in (("whole", MLP, shell("jit")), ("split", WIDE, shell("jit", None, 2))):
        for streamed in (False, True):
            trained = train(on, encoder, streamed=streamed)
            found = numbers(trained)
            found["losses"] = np.asarray(trained.metrics.losses)
            feed = "streamed" if streamed else "resident"
            np.savez(f"{out}/{name}-{feed}-{rank}.npz", **found)
    kernel = trained.state.params["shared"]["Dense_1"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(64, 64)}

    handle = checkpoint.open_checkpoints(f"{out}/checkpoints")
    checkpoint.save(handle, 20, trained.state)
    template = on.template(jax.tree.map(jax.typeof, trained.state))
    restored = checkpoint.restore(handle, template).state
    checkpoint.close(handle)
    assert checkpoint.digest(restored) == checkpoint.digest(trained.state)
    assert jax.tree.leaves(restored)[1].sharding == jax.tree.leaves(trained.state)[1].sharding
    with pytest.raises(ValueError, match="over 4 of 2 devices of a process: use a number that"):
        shell("jit", None, 4)
    own = np.full((2, 3), rank)
    apart = on.streamed({"x": own[None]}).batches["x"]  # this process has one part of two
    with pytest.raises(ValueError, match=r"x \[1, 4, 3\] has parts that no device of this process"):
        checkpoint.digest({"x": apart})
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
