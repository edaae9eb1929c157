# SPDX-License-Identifier: Apache-2.0
"""What a journal says of itself: format, task, source, outcome, robot and the names of its topics when it was recorded.

Format 1 (until September 2026) named its topics always alike and said no number. Format 2 has the live names of the
topics, what their publishers offered, and joint states with velocity, effort and further joints. A higher number is
read as far as this version understands it, for what is added does not change what was there.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrm_ros.config import CameraSpec, RobotContract
from lrm_ros.config_files import from_dict

FORMAT = 2
RECOVERED = {"recovered": "true"}  # the metadata "end" of a salvaged journal
_SEAL = "crc32"
FAULTY = ".faulty"  # follows the name of a journal whose recording was not good

_log = logging.getLogger(__name__)


class JournalError(ValueError):
    """A journal that cannot be read; the message names the file, what is wrong and the cure."""


@dataclass(frozen=True)
class JournalInfo:
    """Metadata of a journal, readable without its messages.

    Attributes:
        episode_id: unique name, the stem of the file.
        task: language instruction.
        source: who acted: ``"policy"``, ``"teleop"``, ``"expert"``.
        contract: joints, limits, cameras and control rate of the robot.
        outcome: success as judged by a person, ``None`` if nobody said.
        recovered: salvaged from an unfinished file.
        notes: further text values given to ``finish``.
        topics: this package's name of a topic -> its name in the file, where that is another one.
        may_intervene: it says who led, for a person could take over from a policy.
    """

    episode_id: str
    task: str
    source: str
    contract: RobotContract
    outcome: bool | None = None
    recovered: bool = False
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    topics: Mapping[str, str] = dataclasses.field(default_factory=dict)
    may_intervene: bool = False


def info_of(path: Path, records: Iterator[Any]) -> JournalInfo:
    """Return the info from a file's metadata records.

    Raises:
        JournalError: no journal, or one whose metadata this version cannot read; says why.
    """
    metadata: dict[str, dict[str, str]] = {}
    unsealed = []
    for record in records:
        values = dict(record.metadata)
        seal = values.pop(_SEAL, None)
        if seal is None and values != RECOVERED:
            unsealed.append(record.name)
        elif seal is not None and seal != _checksum(values):
            raise _damaged(path, record.name)
        metadata.setdefault(record.name, {}).update(values)
    if "episode" not in metadata:
        raise JournalError(f"'{path}' is an MCAP file but no journal of lrm_ros: it has no 'episode' metadata")
    about, end = metadata["episode"], dict(metadata.get("end", {}))
    number = about.get("format", "1")
    if number != "1" and unsealed:
        raise _damaged(path, unsealed[0])
    newer = not number.isdecimal() or int(number) > FORMAT
    cure = f"it has format {number}, this version knows {FORMAT}: install a newer lrm_ros" if newer else "record again"
    if lacking := [key for key in ("task", "source", "contract") if key not in about]:
        raise JournalError(f"journal '{path}' does not say its {', '.join(lacking)}; {cure}")
    try:
        contract = _contract(json.loads(about["contract"]), path)
    except (ValueError, TypeError) as error:
        raise JournalError(f"journal '{path}': its robot contract cannot be used ({error}); {cure}") from error
    try:
        topics = {str(name): str(live) for name, live in json.loads(about.get("topics", "{}")).items()}
    except (ValueError, AttributeError) as error:
        raise JournalError(f"journal '{path}': the names of its topics cannot be read ({error}); {cure}") from error
    outcome = end.pop("outcome", "")
    if outcome not in ("", "true", "false"):
        raise JournalError(f"journal '{path}': its outcome is '{outcome}', neither true nor false; {cure}")
    recovered = end.pop("recovered", "") == "true"
    judged = None if not outcome else outcome == "true"
    name = path.name.removesuffix(FAULTY).removesuffix(".mcap")
    return JournalInfo(name, about["task"], about["source"], contract, judged, recovered, end, topics)


def sealed(values: Mapping[str, str]) -> dict[str, str]:
    """Return a metadata record with its checksum: MCAP has one for messages alone."""
    return {**values, _SEAL: _checksum(values)}


def _checksum(values: Mapping[str, str]) -> str:
    return f"{zlib.crc32(json.dumps(sorted(values.items())).encode()):08x}"


def _damaged(path: Path, name: str) -> JournalError:
    return JournalError(
        f"journal '{path}' is corrupt: its metadata '{name}' do not have the checksum that was written; restore the "
        "file from a copy, or leave it out"
    )


def _contract(values: Any, path: Path) -> RobotContract:
    """Return the contract; keys that another version has added are left out, and said."""
    if not isinstance(values, dict):
        raise ValueError(f"expected an object, got {values!r}")
    values, cameras = dict(values), values.get("cameras")
    unknown = _drop_unknown(values, RobotContract)
    if isinstance(cameras, list):
        values["cameras"] = [dict(camera) if isinstance(camera, dict) else camera for camera in cameras]
        for camera in values["cameras"]:
            if isinstance(camera, dict):
                unknown += [f"cameras.{key}" for key in _drop_unknown(camera, CameraSpec)]
    if unknown:
        _log.warning("'%s': ignored %s of its contract, which this version does not know", path, ", ".join(unknown))
    return from_dict(RobotContract, values, "contract")


def _drop_unknown(values: dict[str, Any], kind: type) -> list[str]:
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(values.keys() - known)
    for key in unknown:
        del values[key]
    return unknown
