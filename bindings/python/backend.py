"""Builds the wheel, with nothing but the standard library (PEP 517).

    CHRONOS_WHEEL_LIBRARY=$PWD/target/release/libchronos_c.so \\
    CHRONOS_WHEEL_TOOL=$PWD/target/release/chronos pip wheel --no-deps bindings/python

The wheel that contains the C library is tagged for the platform it runs on, by the machine and the
symbols of what is in it. Without the library the wheel is for any platform: its import works
everywhere, and whatever needs the library says how to get it.
"""

import base64
import hashlib
import os
import platform
import re
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
NAME = "chronos-gpu"
SUMMARY = "Time-limited partitions of the GPUs of one machine"
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "chronos/__init__.py").read_text(), re.MULTILINE
).group(1)
FOLDER = f"chronos_gpu-{VERSION}.dist-info"
METADATA = f"""\
Metadata-Version: 2.1
Name: {NAME}
Version: {VERSION}
Summary: {SUMMARY}
License: Apache-2.0
Requires-Python: >=3.9
"""
SCRIPTS = "[console_scripts]\nchronos = chronos._tool:main\n"


# Names of machines in a wheel's tag, by the number that an ELF file has for them.
# Source: `e_machine` of elf.h.
ELF_MACHINES = {62: "x86_64", 183: "aarch64"}


def tag(library, tool):
    """The platform of what is in the wheel; one that claims more than it holds is worse than none."""
    if library is None:
        return "py3-none-any"
    machine = platform.machine().lower()
    if sys.platform == "linux":
        contents = [path.read_bytes() for path in (library, tool) if path is not None]
        # The machine that they were built for, which need not be this one.
        numbers = {struct.unpack_from("<H", content, 18)[0] for content in contents}
        machines = [ELF_MACHINES.get(number) for number in sorted(numbers)]
        if len(machines) != 1 or None in machines:
            raise SystemExit(f"library and tool are for machines {sorted(numbers)} (ELF numbers)")
        # Source: PEP 600: manylinux_X_Y runs where glibc is X.Y or newer.
        needed = [minor for content in contents for minor in re.findall(rb"GLIBC_2\.(\d+)", content)]
        newest = max((int(minor) for minor in needed), default=None)
        kind = "linux" if newest is None else f"manylinux_2_{max(newest, 17)}"
        return f"py3-none-{kind}_{machines[0]}"
    if sys.platform == "darwin":
        return f"py3-none-macosx_11_0_{machine}"
    return "py3-none-win_amd64" if sys.platform == "win32" else f"py3-none-{sys.platform}_{machine}"


def named(variable):
    """The file that a variable names, which has to be there."""
    value = os.environ.get(variable)
    if not value:
        return None
    path = Path(value).resolve()
    if not path.is_file():
        raise SystemExit(f"{variable}: `{path}` is not a file")
    return path


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Writes the wheel; returns its name."""
    library, tool = named("CHRONOS_WHEEL_LIBRARY"), named("CHRONOS_WHEEL_TOOL")
    if tool is not None and library is None:
        raise SystemExit("CHRONOS_WHEEL_TOOL is given without CHRONOS_WHEEL_LIBRARY")
    kind = tag(library, tool)
    files = [(f"chronos/{p.name}", p.read_bytes(), 0o644) for p in sources()]
    if library is not None:
        ending = {"darwin": "libchronos.dylib", "win32": "chronos.dll"}
        name = ending.get(sys.platform, "libchronos.so")
        files.append((f"chronos/{name}", library.read_bytes(), 0o755))
    if tool is not None:
        files.append(("chronos/bin/chronos", tool.read_bytes(), 0o755))
    pure = "true" if library is None else "false"
    wheel = f"Wheel-Version: 1.0\nGenerator: chronos\nRoot-Is-Purelib: {pure}\nTag: {kind}\n"
    for name, text in [("METADATA", METADATA), ("WHEEL", wheel), ("entry_points.txt", SCRIPTS)]:
        files.append((f"{FOLDER}/{name}", text.encode(), 0o644))
    record = "".join(f"{name},{digest(content)},{len(content)}\n" for name, content, _ in files)
    files.append((f"{FOLDER}/RECORD", f"{record}{FOLDER}/RECORD,,\n".encode(), 0o644))
    target = f"chronos_gpu-{VERSION}-{kind}.whl"
    with zipfile.ZipFile(Path(wheel_directory) / target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in files:
            # The same files make the same wheel.
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100000 | mode) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return target


def build_sdist(sdist_directory, config_settings=None):
    """Writes the source archive, which builds the wheel for any platform; returns its name."""
    top = f"chronos_gpu-{VERSION}"
    with tarfile.open(Path(sdist_directory) / f"{top}.tar.gz", "w:gz") as archive:
        for path in [*sources(), HERE / "backend.py", HERE / "pyproject.toml"]:
            archive.add(path, f"{top}/{path.relative_to(HERE)}")
        (Path(sdist_directory) / "PKG-INFO").write_text(METADATA)
        archive.add(Path(sdist_directory) / "PKG-INFO", f"{top}/PKG-INFO")
        (Path(sdist_directory) / "PKG-INFO").unlink()
    return f"{top}.tar.gz"


def sources():
    return sorted((HERE / "chronos").glob("*.py"))


def digest(content):
    sum_ = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
    return f"sha256={sum_.rstrip('=')}"


if __name__ == "__main__":
    print(build_wheel(sys.argv[1] if len(sys.argv) > 1 else "."))
