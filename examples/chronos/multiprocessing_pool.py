"""Workers that share one partition; only the process that made it releases it."""

import multiprocessing
import os

from chronos.multiprocessing import create_shared_partition


def work(job):
    partition, number = job
    return f"worker {os.getpid()}: batch {number} on GPU {partition.device_index}"


if __name__ == "__main__":
    with create_shared_partition(device=0, memory=0.5, duration=600) as partition:
        with multiprocessing.Pool(2) as pool:
            for line in pool.map(work, [(partition, number) for number in range(4)]):
                print(line)
