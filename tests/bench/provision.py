"""The peers that are not ours: found on this machine, or put into a cache folder of the user's.

Nothing is installed into the system: nginx's package is unpacked, never configured or started.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.process import ROOT

LOCK = ROOT / "requirements" / "bench-litellm.txt"
INSTALL_S = 900


class Missing(Exception):
    """A peer cannot be had here; the message says why."""


def litellm() -> tuple[Path, str]:
    """LiteLLM's executable and version, installed from the hashed lock on first use.  Raises Missing."""
    version = litellm_version()
    folder = _cache() / f"litellm-{version}"
    whole = folder / "installed"
    if not whole.exists():
        print(f"installing LiteLLM {version} into {folder} (once, about a minute) …", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        _run([*pip, "--require-hashes", "--no-deps", "-r", str(LOCK)])
        whole.touch()
    return folder / "bin" / "litellm", version


def litellm_version() -> str:
    found = re.search(r"^litellm==(\S+)", LOCK.read_text(), re.MULTILINE)
    if not found:
        raise Missing(f"{LOCK.name} does not pin litellm")
    return found[1]


def nginx() -> Path:
    """nginx from PATH, else from the distribution's package, unpacked into the cache.  Raises Missing."""
    places = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/usr/local/sbin"
    if found := shutil.which("nginx", path=places):
        return Path(found)
    folder = _cache() / "nginx"
    binary = folder / "usr" / "sbin" / "nginx"
    if not binary.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise Missing("not on PATH, and there is no apt-get to fetch it with")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # On some Ubuntu releases `nginx` is only a name for `nginx-core`.
        for package in ("nginx", "nginx-core"):
            try:
                _run(["apt-get", "download", "-q", package], folder)
            except Missing:
                if os.geteuid() != 0:
                    raise
                _run(["apt-get", "update", "-q"], folder)
                _run(["apt-get", "download", "-q", package], folder)
            for archive in folder.glob("*.deb"):
                _run(["dpkg-deb", "-x", str(archive), str(folder)])
            if binary.exists():
                break
    _run([str(binary), "-v"])
    return binary


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pluggably-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(command: list[str], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Missing(f"{command[0]}: {e}") from e
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Missing(f"{Path(command[0]).name}: {words[-1] if words else done.returncode}")
