"""What is installed is what the lock names, file by file, under licences that were looked at."""

import hashlib
import os
import re
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement

from mlops_tasks.config import PROJECT
from mlops_tasks.supply_chain.install import cpu_build, cuda_build
from mlops_tasks.supply_chain.licences import PAGE, Policy, installed, licence_of, page
from mlops_tasks.supply_chain.requirements import CUDA_LOCK, LOCK, NOT_LOCKED, Pin, normalised, read_lock, read_wheels

UV = f", Path({str(Path(sys.executable).with_name('uv'))!r})"
INSTALLERS = ["install", "install_with_uv"]
DOCKERFILE = (PROJECT / "docker" / "Dockerfile").read_text()


@dataclass(frozen=True)
class Sandbox:
    """An environment of its own, whose pip finds wheels in one folder and nothing elsewhere."""

    folder: Path

    def offer(self, name: str, requires: str = "") -> str:
        """Put a wheel where pip looks; returns its digest."""
        path = self.folder / f"{name}-1.0-py3-none-any.whl"
        info = f"{name}-1.0.dist-info"
        needs = f"Requires-Dist: {requires}\n" if requires else ""
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}.py", "")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def run(self, code: str, places: str = "") -> "subprocess.CompletedProcess[str]":
        """Run code in the environment, as `make env` would; pip looks at `places` instead of the folder."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": places or str(self.folder), "PIP_CONFIG_FILE": os.devnull}
        command = [str(self.folder / "env" / "bin" / "python"), "-c", code]
        return subprocess.run(command, env=environ, cwd=PROJECT, capture_output=True, text=True, check=False)

    def install(self, *pins: Pin, places: str = "", by: str = "install") -> "subprocess.CompletedProcess[str]":
        """Install pins as the lock's are, by pip or (`install_with_uv`) by uv."""
        return self.run(
            "from pathlib import Path\n"
            f"from mlops_tasks.supply_chain.install import {by}\n"
            "from mlops_tasks.supply_chain.requirements import Pin\n"
            f"raise SystemExit(not {by}({list(pins)!r}{UV if by != 'install' else ''}))",
            places,
        )


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    folder = tmp_path_factory.mktemp("sandbox")
    venv.create(folder / "env", with_pip=True)
    return Sandbox(folder)


def test_every_package_is_pinned_with_hashes() -> None:
    """In both locks; and neither says where packages come from, which is pip's own set-up."""
    for path in (LOCK, CUDA_LOCK):
        pins = read_lock(path)
        assert pins
        assert all(pin.digests for pin in pins.values())
        assert "://" not in path.read_text() and "--index" not in path.read_text()


def test_what_is_installed_is_the_lock() -> None:
    """No package besides, none missing, each at its version."""
    found: dict[str, str] = {}
    for each in distributions():
        found.setdefault(normalised(each.metadata["Name"]), each.version.partition("+")[0])
    locked = {name: pin.version for name, pin in read_lock(LOCK).items()}
    assert {name: version for name, version in found.items() if name not in NOT_LOCKED} == locked


def test_both_builds_of_torch_are_named() -> None:
    """The lock takes the index's files and a CPU build at hand; each way of installing names its own alone."""
    torch = read_lock(LOCK)["torch"]
    local = {wheel.digest for wheel in read_wheels() if wheel.name == "torch" and wheel.public_version == torch.version}
    assert local and local < set(torch.digests)
    assert cpu_build(torch) == Pin("torch", f"{torch.version}+cpu", tuple(cpu_build(torch).digests))
    assert set(cpu_build(torch).digests) == local
    assert set(cuda_build(torch).digests) == set(torch.digests) - local
    assert not set(read_lock(CUDA_LOCK)) & set(read_lock(LOCK))


@pytest.mark.parametrize("by", INSTALLERS)
def test_a_file_with_another_hash_is_not_installed(sandbox: Sandbox, by: str) -> None:
    """The same name and version with other bytes."""
    name = f"forged_{by}"
    digest = sandbox.offer(name)
    refused = sandbox.install(Pin(name, "1.0", ("0" * 64,)), by=by)
    assert refused.returncode == 1 and "hash" in refused.stderr.lower()
    assert sandbox.run(f"import {name}").returncode != 0
    assert sandbox.install(Pin(name, "1.0", ("0" * 64, digest)), by=by).returncode == 0
    assert sandbox.run(f"import {name}").returncode == 0


@pytest.mark.parametrize("by", INSTALLERS)
def test_what_a_package_asks_for_is_not_installed_beside_it(sandbox: Sandbox, by: str) -> None:
    """Whatever its metadata require, what the lock does not name stays away."""
    name = f"greedy_{by}"
    digest = sandbox.offer(name, requires="uninvited")
    sandbox.offer("uninvited")
    assert sandbox.install(Pin(name, "1.0", (digest,)), by=by).returncode == 0
    assert sandbox.run(f"import {name}").returncode == 0
    assert sandbox.run("import uninvited").returncode != 0


def test_what_was_installed_before_and_is_not_in_the_lock_is_named(sandbox: Sandbox) -> None:
    """With what to do; a package of the lock, and what every environment has, is not."""
    known, stowaway = (Pin(name, "1.0", (sandbox.offer(name),)) for name in ("known", "stowaway"))
    assert sandbox.install(known, stowaway).returncode == 0
    others = ["setuptools", *(f"{kind}_{by}" for kind in ("forged", "greedy") for by in INSTALLERS)]
    locked = [normalised(name) for name in (*others, "elsewhere", "known")]
    said = sandbox.run(f"from mlops_tasks.supply_chain.install import *; tell_foreign({locked!r})").stderr
    assert said == "installed and not in the lock: stowaway; remove them, or delete .venv\n"


def test_uv_looks_where_pip_looks(sandbox: Sandbox) -> None:
    """A configured place that is not there is passed over; without uv nothing is installed and pip is asked."""
    pin = Pin("elsewhere", "1.0", (sandbox.offer("elsewhere"),))
    places = f"{sandbox.folder / 'nowhere'} {sandbox.folder}"
    assert sandbox.install(pin, places=str(sandbox.folder / "nowhere"), by="install_with_uv").returncode == 1
    assert sandbox.install(pin, places=places, by="install_with_uv").returncode == 0
    absent = sandbox.run("from mlops_tasks.supply_chain.install import *; raise SystemExit(not install_with_uv([]))")
    assert absent.returncode == 1 and absent.stderr == ""


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_locks_name_what_linux_needs_on_either_processor(machine: str) -> None:
    """Whatever the installed packages ask for there, with CUDA's packages where torch asks for them."""
    platform = {
        **{key: str(value) for key, value in default_environment().items()},
        **{"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": machine},
    }
    locked = {*read_lock(LOCK), *read_lock(CUDA_LOCK)}
    asked = _asked_for(platform)
    assert len(asked) > 300
    assert asked <= locked


def _asked_for(platform: dict[str, str]) -> set[str]:
    """Names of all that this project needs on a platform, by the metadata of what is installed."""
    known = {normalised(each.metadata["Name"]): each for each in distributions()}
    begin = Requirement("mlops-tasks[yahoo,akshare,baostock,dev]")
    asked: set[tuple[str, str]] = set()
    waiting = [begin]
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (key := (normalised(wanted.name), extra)) in asked:
                continue
            asked.add(key)
            needs = known[key[0]].requires if key[0] in known else None
            for need in map(Requirement, needs or ()):
                if need.marker is None or need.marker.evaluate({**platform, "extra": extra}):
                    waiting.append(need)
    return {name for name, _ in asked} - {"mlops-tasks"}


def test_an_installation_shows_how_far_it_is_and_no_warning_that_means_nothing(sandbox: Sandbox) -> None:
    """A line a package with its size, then how many are unpacked; a configured place that is not there is not told."""
    names = [f"part{number}" for number in range(12)]
    pins = [Pin(name, "1.0", (sandbox.offer(name),)) for name in names]
    done = sandbox.install(*pins, places=f"{sandbox.folder} {sandbox.folder / 'nowhere'} nowhere-either")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    files = [
        re.fullmatch(r"\[ ?(\d+)/12\] (part\d+)-1\.0-py3-none-any\.whl, \d+ (bytes|kB)", line) for line in lines[:12]
    ]
    assert [each and (int(each[1]), each[2]) for each in files] == [(n, name) for n, name in enumerate(names, 1)]
    assert lines[12] == "unpacking 12 packages"
    assert re.fullmatch(r"12 packages are installed after \d+ s", lines[-1])


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="elsewhere the index's own build is for CPUs")
def test_no_cpu_build_of_torch_is_said_before_anything_is_installed(sandbox: Sandbox) -> None:
    """With both ways out."""
    done = sandbox.run("from mlops_tasks.supply_chain.install import main; raise SystemExit(main([]))")
    assert done.returncode == 1
    assert "PIP_FIND_LINKS" in done.stderr and "TORCH=cuda" in done.stderr
    assert sandbox.run("import numpy").returncode != 0


def test_every_licence_was_looked_at() -> None:
    """No package of another licence than those of licences.yaml, and the page lists them as they are installed."""
    policy = Policy.read()
    rows = installed(policy)
    assert [text for text in (policy.objection(name, licence) for name, _, licence in rows) if text] == []
    assert page(policy) == PAGE.read_text(), "make licences"
    assert set(policy.accepted) | set(policy.stated) <= {name for name, _, _ in rows}


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("AGPL-3.0-only", "never accepted"),
        ("GNU Affero General Public License v3", "never accepted"),
        ("Proprietary", "never accepted"),
        ("LicenseRef-NVIDIA-Proprietary", "never accepted"),
        ("Other/Proprietary License", "never accepted"),
        ("GPL-3.0-or-later", "not permissive"),
        ("MIT AND LGPL-2.1-only", "not permissive"),
        ("Some words", "not permissive"),
        ("", "states no licence"),
    ],
)
def test_a_licence_that_nobody_looked_at_is_an_error(licence: str, said: str) -> None:
    """Also where it is one of several; those that are never accepted cannot be named as exceptions."""
    policy = Policy.read()
    metadata = Message()
    metadata["Name"], metadata["License"] = "newcomer", licence
    assert said in policy.objection("newcomer", licence_of(metadata, policy))  # type: ignore[arg-type]
    if said == "never accepted":
        assert said in policy.objection("certifi", licence)


def test_known_vulnerabilities_are_those_of_the_locked_versions() -> None:
    """A version that was not judged asks for another look."""
    locked = read_lock(LOCK)
    for entry in yaml.safe_load((PROJECT / "include" / "supply_chain" / "advisories.yaml").read_text()):
        assert set(entry) == {"package", "version", "ids", "what", "why_not_here"}
        assert locked[entry["package"]].version == entry["version"], f"{entry['package']}: judge the new version"
        assert len(entry["why_not_here"]) > 20


def test_the_image_begins_at_a_digest_and_runs_no_package_as_root() -> None:
    """No base is named that could change under its name, and pip and Python run after the step down from root."""
    lines = re.sub(r"\\\n\s*", " ", DOCKERFILE).splitlines()
    steps = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in steps if line.startswith("FROM")] == ["FROM ${BASE}"]
    assert "ARG BASE" in steps[0] and "=" not in steps[0], "a default would be a base without a digest"
    assert "*@sha256:*" in steps[3] and "exit 1" in steps[3]
    down = steps.index("USER alphaops")
    assert [line for line in steps if line.startswith("USER")] == ["USER alphaops"]
    assert not [line for line in steps[:down] if re.search(r"\b(pip|python|COPY|ADD)\b", line) and line != steps[3]]
    assert "BASE: ${BASE:?" in (PROJECT / "docker" / "compose.yaml").read_text()


@pytest.mark.parametrize(("base", "status"), [("python:3.11-slim", 1), ("python:3.11-slim@sha256:" + "0" * 64, 0)])
def test_the_image_refuses_a_base_without_a_digest(base: str, status: int) -> None:
    """The step itself, run by a shell as the build does."""
    step = next(line for line in DOCKERFILE.splitlines() if line.startswith('RUN case "$BASE"'))
    done = subprocess.run(["sh", "-c", step.removeprefix("RUN ")], env={"BASE": base}, check=False, capture_output=True)
    assert done.returncode == status
