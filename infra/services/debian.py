"""Debian packages unpacked into a folder: no root needed, the system stays as it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from marketflow.infra.services.base import ServiceError, program, run_tool

_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_CONF: Final = """Dir::Etc::SourceList "{here}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{here}/state";
Dir::State::Lists "{here}/lists";
Dir::State::status "{here}/status";
Dir::Cache "{here}/cache";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"""


def _mirror() -> str:
    """The archive this machine itself installs from."""
    apt = program("apt-get", "local services without Docker need Debian or a derivative")
    listed = run_tool(
        [apt, "indextargets", "--format", "$(REPO_URI) $(LABEL) $(CODENAME)"], Path("/")
    )
    for line in listed.splitlines():
        uri, _, rest = line.partition(" ")
        if rest.startswith("Debian ") and "security" not in uri and "-" not in rest:
            return uri
    raise ServiceError(
        "this machine has no Debian archive in its apt sources (or never ran apt-get update): "
        "run apt-get update, or start the services with Docker"
    )


def unpack(target: Path, suite: str, package: str, keep: Callable[[str], bool]) -> dict[str, str]:
    """Unpack ``package`` of a Debian suite with those of its dependencies that ``keep`` accepts.

    Uses an apt configuration of its own (lists, cache, status) and Debian's keyring.
    Returns the versions unpacked, by package name.
    """
    if not _KEYRING.is_file():
        raise ServiceError("no Debian keyring: apt-get install debian-archive-keyring")
    apt, dpkg = program("apt-get", "Debian only"), program("dpkg-deb", "Debian only")
    here = target / "apt"
    for folder in ("state", "lists/partial", "cache/archives/partial", "debs"):
        (here / folder).mkdir(parents=True, exist_ok=True)
    (here / "status").touch()
    (here / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n")
    (here / "apt.conf").write_text(_CONF.format(here=here))
    env = {"APT_CONFIG": str(here / "apt.conf")}
    run_tool([apt, "-q", "update"], here, env)
    plan = run_tool([apt, "-s", "-y", "--no-install-recommends", "install", package], here, env)
    names = [name for name in re.findall(r"^Inst (\S+)", plan, re.MULTILINE) if keep(name)]
    run_tool([apt, "-q", "download", *names], here / "debs", env)
    versions = {}
    root = target / "root"
    root.mkdir(exist_ok=True)
    for deb in sorted((here / "debs").glob("*.deb")):
        name, version, _ = deb.name.split("_", 2)
        versions[name] = version.replace("%3a", ":")
        with subprocess.Popen([dpkg, "--fsys-tarfile", deb], stdout=subprocess.PIPE) as tar:
            done = subprocess.run(
                ["tar", "-x", "--no-same-owner", "-C", root], stdin=tar.stdout, check=False
            )
        if done.returncode or tar.returncode:
            raise ServiceError(f"{deb.name} cannot be unpacked into {root}")
    shutil.rmtree(here)
    return versions


def loader(root: Path) -> Path:
    """The dynamic loader of the unpacked system."""
    found = sorted(root.rglob("ld-linux-*.so.*"))
    if not found:
        raise ServiceError(f"no dynamic loader below {root}: remove {root.parent} and try again")
    return found[0]


def wrapper(root: Path, binary: Path) -> None:
    """Put a script in the binary's place that runs it with the unpacked libraries.

    In its place, because PostgreSQL finds its shared files relative to where it was started.
    """
    folders = {path.parent for path in root.rglob("*.so*")}
    libraries = ":".join(str(f) for f in sorted(folders) if "postgresql" not in f.parts)
    real = binary.with_name(f"{binary.name}.real")
    binary.rename(real)
    binary.write_text(
        f'#!/bin/sh\nexec {loader(root)} --library-path {libraries} --argv0 {binary} {real} "$@"\n'
    )
    binary.chmod(0o755)
