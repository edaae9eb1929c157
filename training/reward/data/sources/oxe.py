# SPDX-License-Identifier: Apache-2.0
"""Open X-Embodiment: one RLDS data set as tensorflow-datasets wrote it; TensorFlow itself is not needed to read it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode
from lrm_ros.training.reward.data.sources.oxe_tables import BGR, LANGUAGE_KEYS, LAYOUTS


def read_oxe(
    folder: Path, split: str = "train", camera: str | None = None, fps: float | None = None
) -> Iterator[Entry]:
    """Return the episodes of one data set; images stay encoded until they are asked for, one episode at a time.

    RLDS has no success flag; only DROID tells it, in the path of the recording
    (https://github.com/droid-dataset/droid/issues/43). All others count as demonstrations.

    Args:
        folder: ``ROOT/NAME/VERSION``; NAME is looked up in ``oxe_tables.LAYOUTS``.
        split: name of a split, e.g. ``"train"``.
        camera: key of the images in the observation; default: the first camera of the table that is there. The other
            cameras of an episode have its number too (``train-0000012@image_1``): keep them on one side of a split.
        fps: control rate [Hz]; RLDS does not say it. Default: the table's.

    Raises:
        ImportError: tensorflow-datasets is not installed.
        FileNotFoundError: no data set in the folder.
        ValueError: camera, rate or split not known, or not a data set of TFRecord files.
    """
    features, files = _open_data_set(folder, split)
    name = folder.resolve().parent.name
    layout = LAYOUTS.get(name)
    observation = features["steps"].feature["observation"]
    colour = [key for key, feature in observation.items() if _is_colour(feature.shape)]
    wanted = (camera,) if camera else layout.cameras if layout else ()
    there = [key for key in wanted if key in colour]
    if not there:
        raise ValueError(
            f"data set '{name}': no camera {wanted or '(not in the table)'} among its colour cameras {sorted(colour)}; "
            "choose one with camera="
        )
    rate = fps or (layout.fps if layout else None)
    if not rate:
        raise ValueError(f"data set '{name}': its control rate is not known; give it with fps= [Hz]")
    mark = f"@{there[0]}" if layout is None or there[0] != layout.cameras[0] else ""
    opener = partial(_open, features=features, source=name, camera=there[0], fps=rate)
    return (
        Entry(name, f"{number}{mark}", partial(opener, path, place, episode_id=f"{number}{mark}"))
        for path, place, number in _places(files, split)
    )


def _is_colour(shape: Any) -> bool:
    return isinstance(shape, tuple) and len(shape) == 3 and shape[2] == 3


def _open_data_set(folder: Path, split: str) -> tuple[Any, list[tuple[Path, int]]]:
    """Return the features of a data set, and the files of a split with the number of episodes in each."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError("Open X-Embodiment needs tensorflow-datasets: pip install 'lrm_ros[oxe]'") from error
    if not (folder / "dataset_info.json").is_file():
        raise FileNotFoundError(
            f"'{folder}' holds no dataset_info.json; give the folder ROOT/NAME/VERSION of a data set"
        )
    info = tfds.builder_from_directory(folder).info
    if split not in info.splits:
        raise ValueError(f"'{folder}' has no split '{split}'; choose one of {', '.join(info.splits)}")
    if info.file_format.value != "tfrecord":
        raise ValueError(f"'{folder}' is stored as {info.file_format.value}; only tfrecord can be read")
    if "steps" not in info.features:
        raise ValueError(f"'{folder}' has no 'steps': it is not a data set in RLDS form")
    chosen = info.splits[split]
    return info.features, [(Path(p), n) for p, n in zip(chosen.filepaths, chosen.shard_lengths, strict=True)]


def _places(files: list[tuple[Path, int]], split: str) -> Iterator[tuple[Path, tuple[int, int] | None, str]]:
    """Yield file, (offset, size) and number of each episode; ``None`` for one whose file is missing or cut short."""
    number = 0
    for path, count in files:
        found = list(_records(path)) if path.is_file() else []
        for index in range(count):
            yield path, found[index] if index < len(found) else None, f"{split}-{number:07d}"
            number += 1


def _records(path: Path) -> Iterator[tuple[int, int]]:
    """Yield offset and size of each record's data; 8 bytes of size and a CRC before it, a CRC after it.

    Format: tensorflow/tensorflow:tensorflow/core/lib/io/record_writer.h.
    """
    end = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 16 <= end:
            file.seek(at)
            size = struct.unpack("<Q", file.read(8))[0]
            if at + 16 + size > end:
                return
            yield at + 12, size
            at += 16 + size


def _data(path: Path, place: tuple[int, int]) -> bytes:
    """Return a record, checked against its CRC-32C (rotated and shifted as TFRecord does)."""
    import google_crc32c

    with path.open("rb") as file:
        file.seek(place[0])
        data = file.read(place[1])
        expected = struct.unpack("<I", file.read(4))[0]
    crc = google_crc32c.value(data)
    if ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF != expected:
        raise BadEpisode("damaged record")
    return data


def _open(
    path: Path,
    place: tuple[int, int] | None,
    *,
    features: Any,
    source: str,
    camera: str,
    fps: float,
    episode_id: str,
) -> SourceEpisode:
    if place is None:
        raise BadEpisode("its file is missing or cut short")
    episode = features.deserialize_example_np(_data(path, place), decoders=_encoded_images(features))
    steps = episode["steps"]
    if len(steps) == 0:
        raise BadEpisode("no frames")
    task = instruction(steps[0])
    read = partial(_frames, steps, camera, source in BGR)
    if not any(image.any() for image in read(range(len(steps)))):
        raise BadEpisode(f"camera '{camera}' is black")
    success = success_in(episode) if source.startswith("droid") else None
    kind = "failure" if success is False else "demonstration"
    return SourceEpisode(source, episode_id, task, fps, len(steps), read, success, kind)


def _encoded_images(features: Any) -> dict[str, Any]:
    """Return the decoders that leave images encoded: eleven frames of one camera are wanted, not all of all."""
    import tensorflow_datasets as tfds

    observation = features["steps"].feature["observation"]
    images = [key for key, feature in observation.items() if isinstance(feature, tfds.features.Image)]
    return {"steps": {"observation": {key: tfds.decode.SkipDecoding() for key in images}}}


def _frames(steps: Any, camera: str, bgr: bool, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield images of an episode, decoded one at a time."""
    shape = None
    for index in indices:
        image = _decoded(steps[index]["observation"][camera])
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise BadEpisode(f"camera '{camera}' gives {image.dtype} {image.shape}, not colour images")
        if shape not in (None, image.shape):
            raise BadEpisode("mixed image sizes")
        shape = image.shape
        yield np.ascontiguousarray(image[..., ::-1]) if bgr else image


def _decoded(image: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image that is stored as PNG, JPEG or a plain array."""
    import cv2

    if not isinstance(image, bytes):
        return np.asarray(image)
    stored = np.frombuffer(image, np.uint8)
    decoded = cv2.imdecode(stored, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if image else None
    if decoded is None:
        raise BadEpisode("unreadable image")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def instruction(step: Mapping[str, Any]) -> str:
    """Return the first instruction that is not empty, in the order of ``LANGUAGE_KEYS``.

    Raises:
        BadEpisode: there is none.
    """
    for key in LANGUAGE_KEYS:
        for place in (step.get("observation", {}), step):
            text = text_of(place[key]) if key in place else ""
            if text:
                return text
    raise BadEpisode("no language instruction")


def text_of(value: Any) -> str:
    """Return the text of a string, of bytes, or of UTF-8 bytes in an integer array padded with zeros (language_table).

    Raises:
        BadEpisode: it is none of these.
    """
    array = np.asarray(value)
    try:
        if array.dtype.kind in "iu":
            return bytes(array[array != 0].tolist()).decode().strip()
        text = array.item() if array.size == 1 else None
        if isinstance(text, bytes):
            text = text.decode()
    except ValueError as error:
        raise BadEpisode("language instruction is not UTF-8") from error
    if not isinstance(text, str):
        raise BadEpisode(f"language instruction of shape {array.shape}, {array.dtype}")
    return text.strip("\0 \t\r\n")


def success_in(episode: Mapping[str, Any]) -> bool | None:
    """Return the success that the path of a DROID recording tells (``.../success/...`` or ``.../failure/...``)."""
    path = episode.get("episode_metadata", {}).get("file_path", "")
    parts = re.split(r"[/\\]", text_of(path)) if path else []
    told = {"success", "failure"} & set(parts)
    return told == {"success"} if len(told) == 1 else None
