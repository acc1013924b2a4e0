"""What `.ci/image` and `.ci/release` share: tools that building lacks, archives that do not differ
between two runs."""
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path


def version():
    """The version of every artifact: that of the workspace."""
    with open("Cargo.toml", "rb") as file:
        return tomllib.load(file)["workspace"]["package"]["version"]


def install(command):
    """Runs a command that installs something; whether it did."""
    print(f"installing: {' '.join(map(str, command))}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return subprocess.run(command, stdout=sys.stderr, env=environment).returncode == 0


def lacks_standard_library(target):
    """Why Rust cannot compile for a target, even after it was installed; None where it can."""
    found = subprocess.run(
        ["rustc", "--print", "target-libdir", "--target", target],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    if found.returncode == 0 and any(Path(found.stdout.strip()).glob("libstd-*.rlib")):
        return None
    command = ["rustup", "target", "add", target]
    try:
        installed = install(command)
    except FileNotFoundError:
        installed = False
    if installed:
        return None
    return f"the standard library of {target} is not here; hint: {' '.join(command)}"


def tar(files, time):
    """An uncompressed tar of (name, bytes, mode), in their order, all of one time and of root."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data, mode in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), mode, time
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def gzipped(data):
    """The same bytes every time: neither a time nor a name is in the header."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as file:
        file.write(data)
    return out.getvalue()


def sha256(data):
    """The digest in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
