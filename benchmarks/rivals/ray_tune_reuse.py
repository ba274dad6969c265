"""Ray Tune with `reuse_actors=True`, which its documentation offers for short trials: see `ray_tune`."""

from benchmarks.rivals import ray_tune

if __name__ == "__main__":
    ray_tune.main(reuse_actors=True)
