"""The Jupyter magic.

``%chronos 0 0.5 3600`` takes half of GPU 0 for the kernel, ``%chronos release`` gives it back,
``%%chronos 0 0.5 600`` takes it for one cell. The variables that choose the GPU have to be set
before the framework is imported.
"""

import os

from . import Partitioner

_held = []


def _take(line: str):
    device, memory, duration = line.split()
    partition = Partitioner().create(int(device), float(memory), int(duration))
    os.environ.update(partition.environment)
    return partition


def chronos(line: str, cell=None):
    """See the module."""
    if cell is not None:
        from IPython import get_ipython

        with _take(line):
            return get_ipython().run_cell(cell)
    if line.strip() == "release":
        while _held:
            _held.pop().release()
        return None
    _held.append(_take(line))
    return _held[-1]


def register(ipython) -> None:
    """Makes the magic known."""
    ipython.register_magic_function(chronos, "line_cell", "chronos")
