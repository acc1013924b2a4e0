"""Partitions in asyncio: waiting in the queue does not block the loop.

    async with chronos.aio.request(memory=0.5, duration=3600, wait=600) as partition:
        ...
"""

import asyncio
from contextlib import asynccontextmanager

from . import Partitioner

__all__ = ["request"]


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
