"""Time-limited partitions of the GPUs of one machine.

    import chronos

    with chronos.Partitioner().create(device=0, memory=0.5, duration=3600) as partition:
        train()

A partition ends with its ``with`` block, with its process, or at its deadline, whichever is first.
Importing this package never fails; using it without the C library raises `ChronosStubError`, which
says how to get it.
"""

import ctypes
import json
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Union

from . import _library

__version__ = "0.1.0"
__all__ = [
    "ChronosError",
    "ChronosStubError",
    "Partition",
    "PartitionInfo",
    "Partitioner",
    "check_concurrent_support",
    "is_stub_mode",
]

_MODES = {0: "concurrent", 1: "time_sliced", 2: "stub"}
_PRIORITIES = {"low": -1, "normal": 0, "high": 1}
_EXPIRIES = {"term": 0, "suspend": 1, "notify": 2}
_SIGNALS = {None: 0, "usr1": 1, "usr2": 2, "hup": 3, "int": 4}


class ChronosError(RuntimeError):
    """A call that failed. ``code`` is the negated exit code of the tool, or -1."""

    def __init__(self, message: str, code: int = -1):
        super().__init__(message)
        self.code = code


class ChronosStubError(ChronosError):
    """The C library is not there; the message says how to get it."""


@dataclass
class PartitionInfo:
    """What is known of a partition."""

    partition_id: str
    device_index: int
    memory_fraction: float
    duration_seconds: int
    time_remaining_seconds: int
    username: str
    process_id: int
    active: bool


def is_stub_mode() -> bool:
    """Whether the C library is missing."""
    return _library.library is None


def _need():
    if _library.library is None:
        raise ChronosStubError(_library.missing)
    return _library.library


def _last_error(code: int = -1) -> ChronosError:
    return ChronosError(_need().chronos_get_last_error().decode(errors="replace"), code)


def check_concurrent_support() -> Dict[str, object]:
    """What this machine can do."""
    if is_stub_mode():
        return {
            "nvidia_mps": False,
            "rocm": False,
            "opencl": False,
            "concurrent_possible": False,
            "recommended": "stub",
            "stub_mode": True,
            "reason": _library.missing,
        }
    with Partitioner() as partitioner:
        backend = partitioner.get_backend_name()
    possible = bool(_need().chronos_check_concurrent_support())
    return {
        # Partitions of NVIDIA GPUs run side by side by the driver; no MPS daemon is started.
        "nvidia_mps": False,
        "rocm": backend == "amd",
        "opencl": False,
        "concurrent_possible": possible,
        "recommended": backend,
        "stub_mode": False,
    }


class Partition:
    """A partition that ends with its ``with`` block."""

    def __init__(self, partitioner: "Partitioner", partition_id: str, lease: Optional[dict] = None):
        self._partitioner = partitioner
        self.partition_id = partition_id
        self._lease = lease if lease is not None else partitioner._find(partition_id)
        self._released = False

    @property
    def device(self) -> int:
        """The number of its first GPU."""
        return self._lease["parts"][0]["index"]

    @property
    def devices(self) -> List[int]:
        """The numbers of its GPUs."""
        return [part["index"] for part in self._lease["parts"]]

    @property
    def memory_fraction(self) -> float:
        """Part of each GPU's memory."""
        return self._lease["parts"][0]["fraction"]

    @property
    def duration(self) -> int:
        """Seconds from its grant to its deadline."""
        return self._lease["durationSeconds"]

    @property
    def time_remaining(self) -> float:
        """Seconds that are left; 0 once it has ended."""
        return self._partitioner.time_remaining(self.partition_id)

    @property
    def environment(self) -> Dict[str, str]:
        """Variables for a process that is to run in it."""
        return self._partitioner.environment(self.partition_id)

    def warning_fd(self, seconds: float) -> int:
        """A descriptor that is readable that long before the deadline as it stands now.

        For ``select`` and event loops; close it with ``os.close``. `chronos.aio.warning` waits for
        it in asyncio.
        """
        return self._partitioner.warning_fd(self.partition_id, seconds)

    def extend(self, seconds: float) -> None:
        """Moves the deadline."""
        self._partitioner.extend(self.partition_id, seconds)
        self._lease = self._partitioner._find(self.partition_id)

    def release(self) -> None:
        """Gives it back; once it has ended, by whatever means, this does nothing."""
        if self._released:
            return
        self._released = True
        library = _need()
        if library.chronos_release_partition(self._partitioner._handle, self.partition_id.encode()):
            error = _last_error()
            if "does not exist or has ended" not in str(error):
                raise error

    def __enter__(self) -> "Partition":
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<chronos.Partition {self.partition_id} on {self.devices}>"


class Partitioner:
    """A way to the partitions of this machine."""

    def __init__(self):
        self._handle = None
        handle = _need().chronos_partitioner_create()
        if not handle:
            raise _last_error()
        self._handle = handle

    def close(self) -> None:
        """Gives the handle back; partitions live on until they or the process end."""
        if self._handle:
            _need().chronos_partitioner_destroy(self._handle)
            self._handle = None

    def __enter__(self) -> "Partitioner":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self):
        if _library is not None and getattr(_library, "library", None) is not None:
            self.close()

    def create(
        self, device: int, memory: float, duration: int, user: Optional[str] = None
    ) -> Partition:
        """Takes a part of one GPU."""
        return Partition(self, self.create_raw(device, memory, duration, user))

    def create_raw(
        self, device: int, memory: float, duration: int, user: Optional[str] = None
    ) -> str:
        """As `create`; returns the id, and nothing releases it but you, the process's end, or time."""
        room = ctypes.create_string_buffer(64)
        named = user.encode() if user else None
        if _need().chronos_create_partition(
            self._handle, device, memory, duration, named, room, len(room)
        ):
            raise _last_error()
        return room.value.decode()

    def request(
        self,
        *,
        gpus: Optional[Sequence[Union[int, str]]] = None,
        count: int = 1,
        memory: Optional[float] = None,
        memory_bytes: int = 0,
        compute: Optional[float] = None,
        duration: float = 3600,
        wait: float = 0,
        grace: float = 0,
        priority: str = "normal",
        on_expire: str = "term",
        name: Optional[str] = None,
        detached: bool = False,
        warn: float = 0,
        warn_signal: Optional[str] = None,
    ) -> Partition:
        """Takes parts of several GPUs, waits for them, and all else that `chronos create` can.

        ``warn`` seconds before the deadline every process in it gets ``warn_signal``: ``usr1``,
        ``usr2``, ``hup`` or ``int``.
        """
        wanted = _wanted(locals())
        lease = self._text("chronos_v1_create", ctypes.byref(wanted))
        return Partition(self, lease["id"], lease)

    def suggest(self, **wanted) -> dict:
        """When and where a `request` with these arguments would fit."""
        request = _wanted({**_DEFAULTS, **wanted})
        return self._text("chronos_v1_suggest_json", ctypes.byref(request))

    def release(self, partition_id: str) -> bool:
        """Gives a partition back: True, or `ChronosError`."""
        if _need().chronos_release_partition(self._handle, partition_id.encode()):
            raise _last_error()
        return True

    def extend(self, partition_id: str, seconds: float) -> None:
        """Moves a deadline."""
        self._check(_need().chronos_v1_extend(self._handle, partition_id.encode(), _millis(seconds)))

    def suspend(self, partition_id: str) -> None:
        """Stops the processes of a partition."""
        self._check(_need().chronos_v1_suspend(self._handle, partition_id.encode()))

    def resume(self, partition_id: str, duration: float = 0, wait: float = 0) -> None:
        """Lets them run again; blocks while it waits for its place."""
        identity = partition_id.encode()
        times = (_millis(duration), _millis(wait))
        self._check(_need().chronos_v1_resume(self._handle, identity, *times))

    def attach(self, partition_id: str, pid: int) -> None:
        """Puts a process and its later children into a partition."""
        self._check(_need().chronos_v1_attach(self._handle, partition_id.encode(), pid))

    def warning_fd(self, partition_id: str, seconds: float) -> int:
        """A descriptor that is readable that long before the deadline as it stands now."""
        identity = partition_id.encode()
        descriptor = _need().chronos_v1_warning_fd(self._handle, identity, _millis(seconds))
        if descriptor < 0:
            raise _last_error(descriptor)
        return descriptor

    def time_remaining(self, partition_id: str) -> float:
        """Seconds that are left; 0 once it has ended."""
        left = ctypes.c_int64()
        identity = partition_id.encode()
        code = _need().chronos_v1_remaining_ms(self._handle, identity, ctypes.byref(left))
        if code == -65:
            return 0.0
        self._check(code)
        return left.value / 1000

    def environment(self, partition_id: str) -> Dict[str, str]:
        """Variables for a process that is to run in a partition."""
        return self._text("chronos_v1_env_json", partition_id.encode())

    def list(self) -> List[PartitionInfo]:
        """Live partitions of the machine."""
        count = ctypes.c_size_t(0)
        library = _need()
        if library.chronos_list_partitions(self._handle, None, ctypes.byref(count)):
            raise _last_error()
        while True:
            room = count.value + 8
            infos = (_library.PartitionInfo * room)()
            count = ctypes.c_size_t(room)
            if library.chronos_list_partitions(self._handle, infos, ctypes.byref(count)):
                raise _last_error()
            # Somebody may have taken one between two calls: ask until all fit.
            if count.value <= room:
                return [_info(info) for info in infos[: count.value]]

    def get_available(self, device: int) -> float:
        """Memory of a GPU that is not leased, 0 to 100."""
        free = _need().chronos_get_available_percentage(self._handle, device)
        if free < 0:
            raise _last_error()
        return free

    def show_stats(self) -> None:
        """Prints the GPUs."""
        _need().chronos_show_device_stats(self._handle)

    def get_execution_mode(self) -> str:
        """``concurrent``, ``time_sliced`` or ``stub``."""
        return _MODES[_need().chronos_get_execution_mode(self._handle)]

    def get_backend_name(self) -> str:
        """The backend that finds the GPUs."""
        return _need().chronos_get_backend_name(self._handle).decode()

    @staticmethod
    def check_concurrent_support() -> bool:
        """Whether a GPU of this machine can run partitions side by side."""
        return bool(_need().chronos_check_concurrent_support())

    def _check(self, code: int) -> None:
        if code:
            raise _last_error(code)

    def _text(self, function: str, argument) -> dict:
        out = ctypes.c_void_p()
        library = _need()
        self._check(getattr(library, function)(self._handle, argument, ctypes.byref(out)))
        try:
            return json.loads(ctypes.string_at(out.value))
        finally:
            library.chronos_v1_free(out)

    def _find(self, partition_id: str) -> dict:
        out = ctypes.c_void_p()
        library = _need()
        self._check(library.chronos_v1_list_json(self._handle, ctypes.byref(out)))
        try:
            leases = json.loads(ctypes.string_at(out.value))["items"]
        finally:
            library.chronos_v1_free(out)
        for lease in leases:
            if lease["id"] == partition_id:
                return lease
        raise ChronosError(f"partition `{partition_id}` does not exist or has ended", -65)


_DEFAULTS = {
    "gpus": None,
    "count": 1,
    "memory": None,
    "memory_bytes": 0,
    "compute": None,
    "duration": 3600,
    "wait": 0,
    "grace": 0,
    "priority": "normal",
    "on_expire": "term",
    "name": None,
    "detached": False,
    "warn": 0,
    "warn_signal": None,
}


def _millis(seconds: float) -> int:
    if not 0 <= seconds <= 366 * 86400:
        raise ValueError(f"{seconds} s is no time from 0 to 366 days")
    return round(seconds * 1000)


def _ppm(part: Optional[float]) -> int:
    if part is None:
        return 0
    if not 0 < part <= 1:
        raise ValueError(f"{part} is no part of a GPU: write half of it as 0.5")
    return max(1, round(part * 1_000_000))


def _wanted(given: dict) -> _library.Request:
    unknown = set(given) - set(_DEFAULTS) - {"self"}
    if unknown:
        raise TypeError(f"unknown arguments: {', '.join(sorted(unknown))}")
    gpus = ",".join(str(gpu) for gpu in given["gpus"]).encode() if given["gpus"] else None
    return _library.Request(
        struct_size=ctypes.sizeof(_library.Request),
        count=given["count"],
        gpus=gpus,
        memory_bytes=given["memory_bytes"],
        memory_ppm=_ppm(given["memory"]),
        compute_ppm=_ppm(given["compute"]),
        duration_ms=_millis(given["duration"]),
        wait_ms=_millis(given["wait"]),
        grace_ms=_millis(given["grace"]),
        priority=_PRIORITIES[given["priority"]],
        on_expire=_EXPIRIES[given["on_expire"]],
        name=given["name"].encode() if given["name"] else None,
        detached=int(given["detached"]),
        warn_ms=_millis(given["warn"]),
        warn_signal=_SIGNALS[given["warn_signal"]],
    )


def _info(info: _library.PartitionInfo) -> PartitionInfo:
    return PartitionInfo(
        partition_id=info.partition_id.decode(),
        device_index=info.device_index,
        memory_fraction=info.memory_fraction,
        duration_seconds=info.duration_seconds,
        time_remaining_seconds=info.time_remaining_seconds,
        username=info.username.decode(errors="replace"),
        process_id=info.process_id,
        active=bool(info.active),
    )


def load_ipython_extension(ipython) -> None:
    """``%load_ext chronos`` makes ``%chronos`` and ``%%chronos``."""
    from . import magic

    magic.register(ipython)
