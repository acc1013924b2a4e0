"""The command ``chronos`` of the wheel: the tool that came with it."""

import os
import sys
from pathlib import Path

from . import _library


def main() -> None:
    tool = Path(__file__).parent / "bin" / "chronos"
    if not tool.exists():
        sys.exit(_library.missing or f"chronos: this wheel has no tool: {tool} is not there")
    os.execv(tool, ["chronos", *sys.argv[1:]])
