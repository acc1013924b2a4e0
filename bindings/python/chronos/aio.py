"""Partitions in asyncio: waiting in the queue does not block the loop.

    async with chronos.aio.request(memory=0.5, duration=3600, wait=600) as partition:
        ...
        await chronos.aio.warning(partition, seconds=60)
        save()
"""

import asyncio
import os
from contextlib import asynccontextmanager

from . import Partition, Partitioner

__all__ = ["request", "warning"]


@asynccontextmanager
async def request(**wanted):
    """`Partitioner.request` with the same arguments."""
    partitioner = await asyncio.to_thread(Partitioner)
    try:
        partition = await asyncio.to_thread(lambda: partitioner.request(**wanted))
        try:
            yield partition
        finally:
            await asyncio.to_thread(partition.release)
    finally:
        partitioner.close()


async def warning(partition: Partition, seconds: float) -> None:
    """Returns that long before the deadline as it stands now; at once where that has passed."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    descriptor = partition.warning_fd(seconds)

    def notice() -> None:
        if not reached.done():
            reached.set_result(None)

    loop.add_reader(descriptor, notice)
    try:
        await reached
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
