"""The Jupyter magic.

``%chronos 0 0.5 3600`` takes half of GPU 0 for the kernel, ``%chronos release`` gives it back,
``%%chronos 0 0.5 600`` takes it for one cell. The variables that choose the GPU have to be set
before the framework is imported; they are what they were when the partition is given back.
"""

import os
from contextlib import contextmanager

from . import Partition, Partitioner

_held = []


def chronos(line: str, cell=None):
    """See the module."""
    if cell is not None:
        from IPython import get_ipython

        with _taken(line):
            return get_ipython().run_cell(cell)
    if line.strip() == "release":
        while _held:
            _held.pop().__exit__(None, None, None)
        return None
    taken = _taken(line)
    partition = taken.__enter__()
    _held.append(taken)
    return partition


@contextmanager
def _taken(line: str):
    with _take(line) as partition:
        variables = partition.environment
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield partition
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _take(line: str) -> Partition:
    words = line.split()
    try:
        device, memory, duration = int(words[0]), float(words[1]), int(words[2])
        if len(words) > 3:
            raise IndexError
    except (IndexError, ValueError):
        usage = "write %chronos DEVICE FRACTION SECONDS, as %chronos 0 0.5 3600, or %chronos release"
        raise ValueError(f"`%chronos {line}` means nothing: {usage}") from None
    return Partitioner().create(device, memory, duration)


def register(ipython) -> None:
    """Makes the magic known."""
    ipython.register_magic_function(chronos, "line_cell", "chronos")
