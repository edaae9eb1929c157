# SPDX-License-Identifier: Apache-2.0
"""What journals hold of what was sent: frames lost, doubled, out of order, joint states, skew; needs no ROS.

Frames have numbers (``record_frames``) and are counted in the order of receipt. What is missing at the ends of an
episode is known by another subscriber to ``camera_info``: a camera that is late there has lost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.bench.record_frames import HZ, LOOP, number_of

Stamps = NDArray[np.int64]  # (N,) [ns]
PERIOD_NS = 1_000_000_000 // HZ
JOINTS, SENT = "/joint_states", "/joint_command_sent"
LOSSES = 50  # so many gaps of a camera are listed
LATE_NS = 25_000_000  # joint states further apart are a gap: two and a half periods [ns]


@dataclass(frozen=True)
class Held:
    """What one journal holds.

    Attributes:
        stamps: by topic or camera, (N,) in the order of receipt [ns].
        received: of the same, when the recorder got them [ns].
        numbers: of each camera's frames, None where one cannot be read.
        bytes: of the file.
    """

    stamps: Mapping[str, Stamps]
    received: Mapping[str, Stamps]
    numbers: Mapping[str, list[int | None]]
    bytes: int


@dataclass(frozen=True)
class Episode:
    """One episode and what was sent meanwhile.

    Attributes:
        held: what its journal holds.
        begin_ns: when the recorder had said that it records [ns].
        end_ns: when it was asked to end [ns].
        heard: stamps of the joint states that another subscriber heard from begin to end [ns].
        shown: the same of each camera's frames, by camera [ns].
        fault: why the recorder called it faulty, or empty.
    """

    held: Held
    begin_ns: int
    end_ns: int
    heard: Stamps
    shown: Mapping[str, Stamps]
    fault: str = ""


def read(path: Path, cameras: Sequence[str]) -> Held:
    """Read a journal: every stamp, and the number of every frame.

    Raises:
        Exception: what mcap says of a damaged file.
    """
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    images = {f"/{camera}/image_raw/compressed": camera for camera in cameras}
    stamps: dict[str, list[int]] = {name: [] for name in (*cameras, JOINTS, SENT)}
    received: dict[str, list[int]] = {name: [] for name in stamps}
    numbers: dict[str, list[int | None]] = {camera: [] for camera in cameras}
    decoders = DecoderFactory()
    with path.open("rb") as stream:
        messages = make_reader(stream, validate_crcs=True).iter_messages([*images, JOINTS, SENT], log_time_order=False)
        for schema, channel, message in messages:
            name = images.get(channel.topic, channel.topic)
            stamps[name].append(message.publish_time)
            received[name].append(message.log_time)
            if name in numbers:
                decode = decoders.decoder_for(channel.message_encoding, schema)
                assert decode is not None
                numbers[name].append(number_of(decode(message.data).data))
    arrays = [{name: np.array(values, np.int64) for name, values in kind.items()} for kind in (stamps, received)]
    return Held(arrays[0], arrays[1], numbers, path.stat().st_size)


def unwrap(numbers: Sequence[int | None], stamps: Stamps, loop: int, last: tuple[int, int] | None) -> list[int | None]:
    """Return the numbers of frames as if the video had no end.

    Args:
        numbers: of the video's frames, from 0 to ``loop`` - 1, in the order of receipt.
        stamps: (N,) [ns]; they tell how often the video began anew: a camera sends no faster than its rate, but it may
            be late by almost the length of the video.
        loop: frames of the video.
        last: number and stamp of the frame before, if there was one.
    """
    found: list[int | None] = []
    early = min(HZ, loop // 4)  # frames that a camera may catch up
    for number, stamp in zip(numbers, stamps.tolist(), strict=True):
        if number is None:
            found.append(None)
            continue
        near = number if last is None else last[0] + round((stamp - last[1]) / PERIOD_NS)
        found.append(number + loop * ((near + early - number) // loop))
        last = found[-1], stamp  # type: ignore[assignment]
    return found


def count_frames(episodes: Sequence[Episode], camera: str, loop: int = LOOP) -> dict[str, Any]:
    """Count a camera's frames over the episodes of a session.

    A frame is due in an episode if its number lies between two of that episode that were sent after its begin, or if
    another subscriber has heard of it before or after these: from the begin to a period before the end. An episode
    starts with the newest frame from before its begin, which is not due.

    Returns:
        ``sent``: frames that were due, ``found`` different ones, ``lost``, of these ``at_the_ends``, ``doubled``,
        ``out_of_order``, ``unreadable``, ``late``: how many fewer than 30 a second the camera has sent, and
        ``losses``: the first gaps inside episodes, how many frames and how far the frames around are apart, as they
        were sent and as they were received.
    """
    losses: list[dict[str, Any]] = []
    figures = dict.fromkeys(("found", "lost", "at_the_ends", "doubled", "out_of_order", "unreadable", "late"), 0)
    last: tuple[int, int] | None = None
    for episode in episodes:
        stamps = episode.held.stamps[camera]
        all_numbers = unwrap(episode.held.numbers[camera], stamps, loop, last)
        known = [(n, s) for n, s in zip(all_numbers, stamps.tolist(), strict=True) if n is not None]
        order = [number for number, _ in known]
        figures["unreadable"] += len(all_numbers) - len(known)
        figures["doubled"] += len(order) - len(set(order))
        figures["out_of_order"] += sum(b < a for a, b in pairwise(order))
        shown = episode.shown[camera]
        edges = shown[(shown >= episode.begin_ns) & (shown <= episode.end_ns - PERIOD_NS)]
        seen = [one for one in known if one[1] >= episode.begin_ns]
        if not seen:
            figures["lost"] += len(edges)
            figures["at_the_ends"] += len(edges)
            continue
        first, newest = min(seen), max(seen)
        different = len({number for number, _ in seen})
        figures["found"] += different
        inside = newest[0] - first[0] + 1 - different - (len(all_numbers) - len(known))
        losses += _gaps(all_numbers, stamps, episode.held.received[camera], episode.begin_ns)
        at_the_ends = int(((edges < first[1]) | (edges > newest[1])).sum())
        figures["lost"] += max(0, inside) + at_the_ends
        figures["at_the_ends"] += at_the_ends
        due = (newest[1] - first[1]) / PERIOD_NS + 1
        figures["late"] += max(0, round(due) - (newest[0] - first[0] + 1))
        last = newest
    sent = figures["found"] + figures["lost"] + figures["unreadable"]
    return {"sent": sent, **figures, "losses": losses[:LOSSES]}


def _gaps(numbers: list[int | None], stamps: Stamps, received: Stamps, begin_ns: int) -> list[dict[str, Any]]:
    """Return where numbers lack in an episode."""
    triples = zip(numbers, stamps.tolist(), received.tolist(), strict=True)
    rows = sorted((number, sent, come) for number, sent, come in triples if number is not None and sent >= begin_ns)
    return [
        {
            "frames": after[0] - before[0] - 1,
            "at_s": round((before[1] - begin_ns) / 1e9, 2),
            "sent_apart_ms": round((after[1] - before[1]) / 1e6, 1),
            "received_apart_ms": round((after[2] - before[2]) / 1e6, 1),
        }
        for before, after in pairwise(rows)
        if after[0] - before[0] > 1
    ]


def count_states(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Count joint states: those that a second subscriber or the recorder has heard are expected."""
    figures = dict.fromkeys(("expected", "found", "lost", "doubled", "gaps"), 0)
    seconds, longest = 0.0, 0
    for episode in episodes:
        held = episode.held.stamps[JOINTS]
        inside = held[(held >= episode.begin_ns) & (held <= episode.end_ns)]
        heard = episode.heard[(episode.heard >= episode.begin_ns) & (episode.heard <= episode.end_ns - PERIOD_NS)]
        figures["expected"] += len(np.union1d(heard, inside))
        figures["found"] += len(np.unique(inside))
        figures["lost"] += len(np.setdiff1d(heard, inside))
        figures["doubled"] += len(held) - len(np.unique(held))
        between = np.diff(np.sort(np.concatenate([[episode.begin_ns], inside, [episode.end_ns]])))
        figures["gaps"] += int((between > LATE_NS).sum())
        longest = max(longest, int(between.max(initial=0)))
        seconds += (episode.end_ns - episode.begin_ns) / 1e9
    return {**figures, "rate_hz": round(figures["found"] / max(seconds, 1e-9), 2), "longest_gap_ms": longest / 1e6}


def spread(values: NDArray[Any]) -> dict[str, float]:
    """Return p50, p95, p99 and the greatest of times [ns] in ms; empty if there are none."""
    if not len(values):
        return {}
    found = np.percentile(values, (50, 95, 99, 100)) / 1e6
    return dict(zip(("p50", "p95", "p99", "max"), found.round(2).tolist(), strict=True))


def skews(episodes: Sequence[Episode], cameras: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return how far stamps are apart in time [ms].

    ``A to B``: each of A to the nearest of B, in time. ``A, B in a step``: what an observation holds of both at a
    control step, as :func:`lrm_ros.record.journal.read_journal` joins them: the newest of each then.
    """
    found: dict[str, list[NDArray[np.int64]]] = {}
    for episode in episodes:
        stamps = {name: np.sort(values) for name, values in episode.held.stamps.items()}
        sent = stamps[SENT]
        pairs = [(cameras[0], other) for other in cameras[1:]] + [(camera, JOINTS) for camera in cameras]
        for one, other in pairs:
            if not len(stamps[one]) or not len(stamps[other]):
                continue
            name = other.strip("/")
            found.setdefault(f"{one} to {name}", []).append(_nearest(stamps[one], stamps[other]))
            newest = [_newest(stamps[topic], sent) for topic in (one, other)]
            known = (newest[0] >= 0) & (newest[1] >= 0)
            found.setdefault(f"{one}, {name} in a step", []).append(np.abs(newest[0] - newest[1])[known])
    return {name: spread(np.concatenate(values)) for name, values in found.items()}


def _nearest(stamps: Stamps, others: Stamps) -> Stamps:
    """Return how far each stamp is from the nearest of others [ns]."""
    at = np.clip(np.searchsorted(others, stamps), 1, max(1, len(others) - 1))
    around = [np.abs(others[np.clip(index, 0, len(others) - 1)] - stamps) for index in (at - 1, at)]
    return np.minimum(*around)


def _newest(stamps: Stamps, moments: Stamps) -> Stamps:
    """Return the newest stamp at or before each moment, -1 where there is none [ns]."""
    at = np.searchsorted(stamps, moments, side="right") - 1
    return np.where(at >= 0, stamps[np.maximum(at, 0)], -1)


def latencies(episodes: Sequence[Episode], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return how long after their stamps messages reached the recorder [ms], but for those from before an episode."""
    found = {}
    for name in names:
        parts = []
        for episode in episodes:
            stamps = episode.held.stamps[name]
            parts.append((episode.held.received[name] - stamps)[stamps >= episode.begin_ns])
        found[name.strip("/")] = spread(np.concatenate(parts) if parts else np.array([]))
    return found
