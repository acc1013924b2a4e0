"""Partitions that are shared with worker processes.

The process that made a partition owns it; what is passed to a worker is a description that
pickles, and a worker never releases.
"""

import os
from dataclasses import dataclass
from typing import Optional

from . import Partition, Partitioner

__all__ = ["ForkSafePartition", "PartitionInfo", "create_shared_partition"]


@dataclass(frozen=True)
class PartitionInfo:
    """A description that pickles."""

    partition_id: str
    device_index: int
    memory_fraction: float
    duration_seconds: int
    username: str
    pid: int


class ForkSafePartition:
    """A partition that the process that made it, and no other, releases."""

    def __init__(
        self, device: int = 0, memory: float = 0.5, duration: int = 3600, user: str = ""
    ):
        self._partitioner: Optional[Partitioner] = Partitioner()
        self._partition: Optional[Partition] = self._partitioner.create(
            device, memory, duration, user or None
        )
        found = [
            info
            for info in self._partitioner.list()
            if info.partition_id == self._partition.partition_id
        ]
        self._info = PartitionInfo(
            self._partition.partition_id,
            device,
            found[0].memory_fraction,
            duration,
            found[0].username,
            os.getpid(),
        )

    @classmethod
    def from_info(cls, info: PartitionInfo) -> "ForkSafePartition":
        """The same partition in another process, which does not own it."""
        shared = cls.__new__(cls)
        shared._partitioner = None
        shared._partition = None
        shared._info = info
        return shared

    def get_info(self) -> PartitionInfo:
        """A description that pickles."""
        return self._info

    @property
    def partition_id(self) -> str:
        """Its id."""
        return self._info.partition_id

    @property
    def device_index(self) -> int:
        """The number of its GPU."""
        return self._info.device_index

    @property
    def memory_fraction(self) -> float:
        """Part of the GPU's memory."""
        return self._info.memory_fraction

    def release(self) -> None:
        """Gives it back, in the process that made it; elsewhere it does nothing."""
        if self._partition is not None and self._info.pid == os.getpid():
            self._partition.release()

    def __enter__(self) -> "ForkSafePartition":
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def __reduce__(self):
        return (ForkSafePartition.from_info, (self._info,))


def create_shared_partition(
    device: int = 0, memory: float = 0.5, duration: int = 3600, user: str = ""
) -> ForkSafePartition:
    """A partition that may be passed to workers."""
    return ForkSafePartition(device, memory, duration, user)
