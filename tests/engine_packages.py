"""Small packages as an index would serve them: a wheel, and a source package whose build counts like ninja.

pip takes them from a folder (PIP_FIND_LINKS), so installing and building are real, and quick.
"""

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

_BACKEND = """
import os, sys, zipfile, base64, hashlib
NAME, VERSION = "native_engine", "2.0"

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    for step in range(1, 4):
        print(f"  [{step}/3] cc -c part{step}.c", flush=True)
        BEHAVIOUR
    wheel = f"{NAME}-{VERSION}-py3-none-any.whl"
    info = f"{NAME}-{VERSION}.dist-info"
    with zipfile.ZipFile(os.path.join(wheel_directory, wheel), "w") as archive:
        archive.writestr("native_engine/flags.txt", os.environ["CMAKE_ARGS"])
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\\nName: {NAME}\\nVersion: {VERSION}\\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel
"""
_PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


def make_wheel(folder: Path, name: str = "ready_engine", version: str = "1.0") -> str:
    """A wheel with one module; returns its sha256."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items())
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def make_source(folder: Path, behaviour: str = "pass") -> str:
    """A source package whose backend counts to 3 and does `behaviour` at each step; returns its sha256."""
    files = {
        "pyproject.toml": _PROJECT,
        "backend.py": _BACKEND.replace("BEHAVIOUR", behaviour),
        "PKG-INFO": "Metadata-Version: 2.1\nName: native_engine\nVersion: 2.0\n",
    }
    path = folder / "native_engine-2.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"native_engine-2.0/{name}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
