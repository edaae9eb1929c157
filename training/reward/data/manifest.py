# SPDX-License-Identifier: Apache-2.0
"""``manifest.json`` beside the keyframes: sources, settings, versions and counts."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from lrm_ros.commit import source_commit
from lrm_ros.files import read_json, write_json

NAME = "manifest.json"
PACKAGES = ("av", "numpy", "opencv-python-headless", "pyarrow")


def open_manifest(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a new run, or of the one that is resumed in this folder, and write it.

    Raises:
        ValueError: the folder belongs to other settings.
    """
    path = out / NAME
    by = {"versions": {name: version(name) for name in PACKAGES}, "commit": source_commit()}
    shards = any(out.glob("shard-*.parquet"))
    if path.exists() and shards:
        manifest = read_json(path, "choose another folder, or delete this one")
        for key in {**manifest["settings"], **settings}:
            before, now = manifest["settings"].get(key), settings.get(key)
            if before != now:
                raise ValueError(
                    f"'{out}' was made with {key}={before!r}, now it is {now!r}; choose another folder, delete this "
                    "one, or set the old value"
                )
        if manifest["complete"]:
            return manifest
        manifest["made_by"] += [by] if by not in manifest["made_by"] else []
    elif shards:
        raise ValueError(f"'{out}' holds shards without {NAME}; choose another folder, or delete this one")
    else:
        manifest = {"complete": False, "settings": settings, "made_by": [by], "counts": {}}
    out.mkdir(parents=True, exist_ok=True)
    for part in out.glob("shard-*.parquet.part"):
        part.unlink()
    write_manifest(out, manifest)
    return manifest


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest; it has its name only when it is complete."""
    write_json(out / NAME, manifest)
