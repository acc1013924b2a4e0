"""Partitions in asyncio: waiting in the queue does not block the loop.

    async with chronos.aio.request(memory=0.5, duration=3600, wait=600) as partition:
        ...
        await chronos.aio.warning(partition, seconds=60)
        save()

Who waits may be cancelled, by `asyncio.wait_for` for example: what is granted after that is given
back at once.
"""

import asyncio
import os
import threading
from contextlib import asynccontextmanager

from . import Partition, Partitioner

__all__ = ["request", "warning"]


@asynccontextmanager
async def request(**wanted):
    """`Partitioner.request` with the same arguments."""

    def take():
        partitioner = Partitioner()
        try:
            return partitioner, partitioner.request(**wanted)
        except BaseException:
            partitioner.close()
            raise

    taken = await _in_thread(take, _give_back)
    try:
        yield taken[1]
    finally:
        await asyncio.to_thread(_give_back, taken)


def _give_back(taken) -> None:
    partitioner, partition = taken
    try:
        partition.release()
    finally:
        partitioner.close()


async def _in_thread(make, abandoned):
    """What `make` returns, from a thread of its own; `abandoned` gets it where nobody waits any more.

    A call of the library cannot be interrupted. So nobody waits for the thread, neither a loop that
    closes nor the interpreter, and the thread alone uses its handle until it is done.
    """
    loop = asyncio.get_running_loop()
    outcome = loop.create_future()

    def settle(made, error) -> None:
        if outcome.cancelled():
            if error is None:
                threading.Thread(target=abandoned, args=(made,), daemon=True).start()
        elif error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(made)

    def work() -> None:
        made, error = None, None
        try:
            made = make()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, made, error)
        except RuntimeError:
            # The loop is closed.
            if error is None:
                abandoned(made)

    threading.Thread(target=work, daemon=True).start()
    return await outcome


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
