"""The C library: where it is, and its functions with their types."""

import ctypes
import os
import platform
import sys
from ctypes import POINTER, c_char, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t
from ctypes import c_uint32, c_uint64, c_void_p
from pathlib import Path

ABI = 1

INSTRUCTIONS = """\
chronos: the library `{name}` was not found, so no GPU can be partitioned from this process.
  Linux:   pip install --force-reinstall chronos-gpu  (the wheel for your platform contains it),
           or install the tool with install.sh, which puts it into /usr/local/lib
  macOS, Windows, FreeBSD: there is no library for them in this version
  Elsewhere on disk: set CHRONOS_LIBRARY to its path
This is {platform}, Python {python}. Tried:
  {tried}"""


class PartitionInfo(ctypes.Structure):
    """ChronosPartitionInfo of chronos_c.h."""

    _fields_ = [
        ("partition_id", c_char * 64),
        ("device_index", c_int),
        ("memory_fraction", c_float),
        ("duration_seconds", c_int),
        ("time_remaining_seconds", c_int),
        ("username", c_char * 256),
        ("process_id", c_int),
        ("active", c_int),
    ]


class Request(ctypes.Structure):
    """chronos_v1_request of chronos_c.h."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("count", c_uint32),
        ("gpus", c_char_p),
        ("memory_bytes", c_uint64),
        ("memory_ppm", c_uint32),
        ("compute_ppm", c_uint32),
        ("duration_ms", c_uint64),
        ("wait_ms", c_uint64),
        ("grace_ms", c_uint64),
        ("priority", c_int32),
        ("on_expire", c_int32),
        ("name", c_char_p),
        ("detached", c_int32),
        ("reserved", c_int32),
        ("warn_ms", c_uint64),
        ("warn_signal", c_int32),
        ("reserved_2", c_int32),
    ]


_FUNCTIONS = {
    "chronos_partitioner_create": (c_void_p, []),
    "chronos_partitioner_destroy": (None, [c_void_p]),
    "chronos_create_partition": (
        c_int,
        [c_void_p, c_int, c_float, c_int, c_char_p, c_char_p, c_size_t],
    ),
    "chronos_release_partition": (c_int, [c_void_p, c_char_p]),
    "chronos_list_partitions": (c_int, [c_void_p, POINTER(PartitionInfo), POINTER(c_size_t)]),
    "chronos_get_available_percentage": (c_float, [c_void_p, c_int]),
    "chronos_show_device_stats": (None, [c_void_p]),
    "chronos_get_last_error": (c_char_p, []),
    "chronos_get_execution_mode": (c_int, [c_void_p]),
    "chronos_get_backend_name": (c_char_p, [c_void_p]),
    "chronos_check_concurrent_support": (c_int, []),
    "chronos_v1_abi": (c_uint32, []),
    "chronos_v1_create": (c_int32, [c_void_p, POINTER(Request), POINTER(c_void_p)]),
    "chronos_v1_extend": (c_int32, [c_void_p, c_char_p, c_uint64]),
    "chronos_v1_suspend": (c_int32, [c_void_p, c_char_p]),
    "chronos_v1_resume": (c_int32, [c_void_p, c_char_p, c_uint64, c_uint64]),
    "chronos_v1_attach": (c_int32, [c_void_p, c_char_p, c_int32]),
    "chronos_v1_remaining_ms": (c_int32, [c_void_p, c_char_p, POINTER(c_int64)]),
    "chronos_v1_warning_fd": (c_int32, [c_void_p, c_char_p, c_uint64]),
    "chronos_v1_list_json": (c_int32, [c_void_p, POINTER(c_void_p)]),
    "chronos_v1_env_json": (c_int32, [c_void_p, c_char_p, POINTER(c_void_p)]),
    "chronos_v1_suggest_json": (c_int32, [c_void_p, POINTER(Request), POINTER(c_void_p)]),
    "chronos_v1_free": (None, [c_void_p]),
}


def _name() -> str:
    if sys.platform == "darwin":
        return "libchronos.dylib"
    return "chronos.dll" if sys.platform == "win32" else "libchronos.so"


def load():
    """The library, or None and the instructions for getting it."""
    name = _name()
    here = Path(__file__).parent
    named = os.environ.get("CHRONOS_LIBRARY")
    places = [named] if named else [str(here / name), "/usr/local/lib/" + name, name]
    tried = []
    for place in places:
        try:
            library = ctypes.CDLL(place)
            if library.chronos_v1_abi() != ABI:
                tried.append(f"{place}: its ABI is not {ABI}")
                continue
        except (OSError, AttributeError) as error:
            tried.append(f"{place}: {error}")
            continue
        for function, (result, arguments) in _FUNCTIONS.items():
            getattr(library, function).restype = result
            getattr(library, function).argtypes = arguments
        tool = here / "bin" / "chronos"
        if tool.exists():
            # The library starts its guardian from the tool that came with it.
            os.environ.setdefault("CHRONOS_PROGRAM", str(tool))
        return library, None
    return None, INSTRUCTIONS.format(
        name=name,
        platform=platform.platform(),
        python=platform.python_version(),
        tried="\n  ".join(tried),
    )


library, missing = load()
