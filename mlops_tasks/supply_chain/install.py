"""Installs the lock into the environment that runs this: `python -m mlops_tasks.supply_chain.install [--cuda]`.

Every file is checked against its hash, nothing is installed that the lock does not name, and what has to be built is
built with the lock's own tools. On Linux torch is a CPU build; the index's own one needs CUDA's packages, which
`--cuda` installs as well.

pip installs torch, which may lie where its configuration alone points to, and uv; uv installs all else, in a fraction
of pip's time. Where uv cannot, pip does.
"""

import os
import subprocess
import sys
from collections.abc import Collection
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory

from mlops_tasks.supply_chain.pip_settings import index_environment, index_options
from mlops_tasks.supply_chain.progress import PipProgress, say
from mlops_tasks.supply_chain.requirements import CUDA_LOCK, LOCK, NOT_LOCKED, Pin, normalised, read_lock, read_wheels

UV = Path(sys.executable).with_name("uv")
BUILD_TOOLS = ("setuptools", "wheel")
"""Needed by packages that are published as source alone."""
NO_CPU_BUILD = """\
No CPU build of torch {version} is at hand. The index's own build for Linux is for CUDA: {count} more packages, 3.4 GB,
most of them under NVIDIA's own licence. Either tell pip where a CPU build is:
    PIP_EXTRA_INDEX_URL=<PyTorch's index of CPU builds> make env
    PIP_FIND_LINKS=<a folder with the wheel> make env
or take the CUDA build, which a GPU needs:
    make env TORCH=cuda
"""


def main(arguments: list[str]) -> int:
    """Install; 1 when it could not be done."""
    pins, cuda = read_lock(LOCK), read_lock(CUDA_LOCK)
    torch = pins["torch"]
    if "--cuda" in arguments:
        pins |= {**cuda, "torch": cuda_build(torch)}
    elif sys.platform == "linux" and not install([cpu_build(torch)]):
        sys.stderr.write("\n" + NO_CPU_BUILD.format(version=torch.version, count=len(cuda)))
        return 1
    if not install([pins[name] for name in BUILD_TOOLS]):
        return 1
    rest = [pin for pin in pins.values() if "--cuda" in arguments or sys.platform != "linux" or pin.name != "torch"]
    if not (install([pins["uv"]]) and install_with_uv(rest)):
        say("uv could not install the lock here; pip takes its place, which takes some minutes more")
        if not install(rest):
            return 1
    tell_foreign(pins)
    return 0


def tell_foreign(pins: Collection[str]) -> None:
    """Name what is installed in this environment and none of these packages, as after an upgrade of the project."""
    foreign = sorted({normalised(each.metadata["Name"]) for each in distributions()} - set(pins) - NOT_LOCKED)
    if foreign:
        sys.stderr.write(f"installed and not in the lock: {', '.join(foreign)}; remove them, or delete .venv\n")


def cpu_build(torch: Pin) -> Pin:
    """The pin as it names CPU builds and nothing else."""
    return Pin(torch.name, f"{torch.version}+cpu", tuple(_local_digests(torch)))


def cuda_build(torch: Pin) -> Pin:
    """The pin as it names the index's own files and nothing else."""
    local = _local_digests(torch)
    return Pin(torch.name, torch.version, tuple(digest for digest in torch.digests if digest not in local))


def _local_digests(torch: Pin) -> set[str]:
    builds = [wheel for wheel in read_wheels() if (wheel.name, wheel.label) == ("torch", "cpu")]
    return {wheel.digest for wheel in builds if wheel.public_version == torch.version}


def install(pins: list[Pin]) -> bool:
    """Whether pip installed them; says what it does, a line a package."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
        command += ["--use-pep517", *_options(pins, Path(folder))]
        return PipProgress([pin.name for pin in pins], say).run(command)


def install_with_uv(pins: list[Pin], uv: Path = UV) -> bool:
    """Whether uv installed them, from where pip would take them; it says itself how far it is."""
    if not uv.is_file():
        return False
    with TemporaryDirectory() as folder:
        command = [str(uv), "pip", "install", "--no-config", "--system-certs", f"--python={sys.executable}"]
        command += ["--compile-bytecode", *index_options(), *_options(pins, Path(folder))]
        return subprocess.run(command, env={**os.environ, **index_environment()}, check=False).returncode == 0


def _options(pins: list[Pin], folder: Path) -> list[str]:
    """What pip and uv are told alike: these packages and no others, by their hashes, built with what is here."""
    lock = folder / "requirements.txt"
    lock.write_text("".join(pin.text() for pin in pins))
    return ["--no-deps", "--require-hashes", "--no-build-isolation", "--requirement", str(lock)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
