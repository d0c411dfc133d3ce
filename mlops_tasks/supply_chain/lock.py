"""Writes the locks from what is installed: `python -m mlops_tasks.supply_chain.lock`, after `pip check`.

Hashes of all files of every package come from the index that pip is set up with, by way of uv; a wheel with a local
label (`+cpu`) that lies in a folder of pip's `find-links` is added to `wheels_at_hand.txt`, its hash to the index's.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory

from mlops_tasks.supply_chain.pip_settings import index_environment, pip_setting
from mlops_tasks.supply_chain.requirements import (
    CUDA_LOCK,
    LOCK,
    NOT_LOCKED,
    WHEELS,
    LocalWheel,
    Pin,
    normalised,
    read_lock,
    read_wheels,
    write_lock,
)

HEAD = """\
# The full lock: every package, pinned, with the hashes of all its files, as resolved together for Python 3.11. Made by
# `make lock`, installed by `make env` with torch's CPU build; include/supply_chain/cuda.txt has what CUDA's needs.
"""
CUDA_HEAD = """\
# What torch's CUDA build needs over requirements.txt on Linux, most of it under NVIDIA's own licence; installed by
# `make env TORCH=cuda` alone. Made by `make lock`.
"""
WHEELS_HEAD = (
    "# Builds with a local label, which the index does not have, as sha256sum writes them. Kept by `make lock`.\n"
)


def main() -> None:
    """Write the lock, the one for CUDA, and the list of local builds."""
    wheels = gather_wheels(pip_setting("find-links").split())
    versions = installed_versions()
    index = index_environment()
    locked = with_wheels(compile_pins(versions, index, "--no-deps"), wheels)
    write_lock(LOCK, HEAD, locked.values())
    everything = compile_pins(versions, index, "--python-platform=x86_64-manylinux_2_28")
    write_lock(CUDA_LOCK, CUDA_HEAD, [pin for name, pin in everything.items() if name not in locked])


def installed_versions() -> dict[str, str]:
    """Public version of each installed package, but for pip and the project itself."""
    found: dict[str, str] = {}
    for each in distributions():
        found.setdefault(normalised(each.metadata["Name"]), each.version.partition("+")[0])
    return {name: version for name, version in found.items() if name not in NOT_LOCKED}


def gather_wheels(folders: Iterable[str]) -> list[LocalWheel]:
    """The known local builds and those that lie in the folders; the list on disk is brought up to date."""
    known = {wheel.file: wheel for wheel in read_wheels()}
    for folder in folders:
        for path in Path(folder).glob("*+*.whl"):
            known[path.name] = LocalWheel(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    wheels = sorted(known.values(), key=lambda wheel: wheel.file)
    WHEELS.write_text(WHEELS_HEAD + "".join(f"{wheel.digest}  {wheel.file}\n" for wheel in wheels))
    return wheels


def with_wheels(pins: Mapping[str, Pin], wheels: Iterable[LocalWheel]) -> dict[str, Pin]:
    """The pins, each with the hashes of local builds of its very version too."""
    merged = dict(pins)
    for wheel in wheels:
        pin = merged.get(wheel.name)
        if pin is not None and pin.version == wheel.public_version:
            merged[wheel.name] = Pin(pin.name, pin.version, (*pin.digests, wheel.digest))
    return merged


def compile_pins(versions: Mapping[str, str], index: Mapping[str, str], *options: str) -> dict[str, Pin]:
    """The packages at these versions, with what they need unless `--no-deps` is among the options, and all hashes."""
    with TemporaryDirectory() as folder:
        wanted, found = Path(folder) / "wanted.in", Path(folder) / "found.txt"
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
        uv = str(Path(sys.executable).with_name("uv"))
        command = [uv, "pip", "compile", "--quiet", "--no-config", "--system-certs", "--generate-hashes", "--no-header"]
        command += ["--no-annotate", f"--python={sys.executable}", *options, str(wanted), f"--output-file={found}"]
        subprocess.run(command, env={**os.environ, **index}, check=True)
        return read_lock(found)


if __name__ == "__main__":
    main()
