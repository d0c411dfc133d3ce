"""Installs the lock into the environment that runs this: `python -m mlops_tasks.supply_chain.install [--cuda]`.

Every file is checked against its hash, nothing is installed that the lock does not name, and what has to be built is
built with the lock's own tools. On Linux torch is a CPU build; the index's own one needs CUDA's packages, which
`--cuda` installs as well.
"""

import sys
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory

from mlops_tasks.supply_chain.progress import PipProgress, say
from mlops_tasks.supply_chain.requirements import CUDA_LOCK, LOCK, NOT_LOCKED, Pin, normalised, read_lock, read_wheels

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
    """Install; 1 when pip could not."""
    pins, cuda = read_lock(LOCK), read_lock(CUDA_LOCK)
    torch = pins["torch"]
    if "--cuda" in arguments:
        pins |= {**cuda, "torch": cuda_build(torch)}
    elif sys.platform == "linux" and not install([cpu_build(torch)]):
        sys.stderr.write("\n" + NO_CPU_BUILD.format(version=torch.version, count=len(cuda)))
        return 1
    if not (install([pins[name] for name in BUILD_TOOLS]) and install(list(pins.values()))):
        return 1
    foreign = sorted({normalised(each.metadata["Name"]) for each in distributions()} - set(pins) - NOT_LOCKED)
    if foreign:
        sys.stderr.write(f"installed and not in the lock: {', '.join(foreign)}; remove them, or delete .venv\n")
    return 0


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
        lock = Path(folder) / "requirements.txt"
        lock.write_text("".join(pin.text() for pin in pins))
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
        command += ["--no-deps", "--require-hashes", "--no-build-isolation", "--use-pep517", "--requirement", str(lock)]
        return PipProgress([pin.name for pin in pins], say).run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
