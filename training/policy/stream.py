# SPDX-License-Identifier: Apache-2.0
"""Training data that does not fit into memory: numbers in RAM, images through LeRobot's own loader while it trains.

Which inputs are in which batch is drawn as in ``batches``, so that a training ends with the same weights either way.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config import RobotContract
from lrm_ros.contract import check_episode
from lrm_ros.record.lerobot_read import EpisodeRows, read_rows
from lrm_ros.record.lerobot_set import LeRobotSet
from lrm_ros.training.policy.batches import TrainingData
from lrm_ros.types import Episode, Observation, Step
from lrm_ros.versions import video_backend

SAMPLE_BYTES = 128 << 20
"""So much of each camera's images is decoded for their statistics."""
STREAMED = "streamed "  # begins the fingerprint of such data


class StreamedData(TrainingData):
    """Steps of several data sets whose images stay in their files; ``images`` is empty."""

    def __init__(
        self, sets: Sequence[LeRobotSet], contract: RobotContract, label: str = "action", workers: int = 0
    ) -> None:
        """Read everything but the images.

        Args:
            sets: LeRobotDatasets v3 whose contract is ``contract``.
            contract: cameras, joints and rate.
            label: as of :class:`TrainingData`.
            workers: processes that read images ahead; 0: none, the training waits for each batch.

        Raises:
            ValueError: an empty data set, or an episode that does not fit the contract.
        """
        self.contract, self.images, self._workers = contract, {}, workers
        states, actions, source, rows, begin, end, person = [], [], [], [], [], [], []
        self.tasks, self.episodes, count = [], 0, 0
        for index, one in enumerate(sets):
            found = read_rows(one)
            if not found:
                raise ValueError(f"data set '{one.root}' has no episodes; give one with at least one episode")
            for episode in found:
                check_episode(_without_images(episode, contract), contract)
                length = len(episode.states)
                states.append(episode.states)
                actions.append(episode.wishes if label == "wish" else episode.actions)
                self.tasks.extend(episode.tasks)
                person.append(np.zeros(length, bool) if episode.interventions is None else episode.interventions)
                begin.append(np.full(length, count))
                count += length
                end.append(np.full(length, count))
            length = sum(len(episode.states) for episode in found)
            rows.append(np.arange(length))
            source.append(np.full(length, index))
            self.episodes += len(found)
        self.states, self.actions = np.concatenate(states), np.concatenate(actions)  # (S, D)
        self.source = np.concatenate(source)  # (S,)
        self.person, self.weight = np.concatenate(person), None
        self._begin, self._end = np.concatenate(begin), np.concatenate(end)  # (S,)
        self.inputs = self._image = np.arange(count)  # every step has its images
        self._checksum = None
        self._files = [one.root for one in sets]
        parts = [(one.root, dict(one.cameras)) for one in sets]
        self._frames = _Frames(parts, self.source, np.concatenate(rows))
        self._sample: Mapping[str, np.ndarray] = {}

    def batches(
        self,
        seed: int,
        steps: range,
        size: int,
        weights: Sequence[float] | None,
        deltas: Sequence[int],
        observed: Sequence[int] | None = None,
    ) -> Generator[dict[str, Any]]:
        """Yield the batch of each training step; workers read the images of the next ones meanwhile."""
        loader = self._loader(_Draws(self, seed, steps, size, weights, observed), self._workers)
        for step, images in zip(steps, loader, strict=True):
            yield self._batch(images, self.sample_indices(seed, step, size, weights), deltas, observed)

    def batch(
        self, indices: np.ndarray, deltas: Sequence[int], observed: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Return one batch; see :meth:`TrainingData.batch`."""
        (images,) = self._loader([self.seen_steps(indices, observed).ravel().tolist()], 0)
        return self._batch(images, indices, deltas, observed)

    def _batch(
        self, images: Mapping[str, Any], indices: np.ndarray, deltas: Sequence[int], observed: Sequence[int] | None
    ) -> dict[str, Any]:
        """Return a batch of images (B * T, 3, H, W) uint8 that have been read."""
        found = {key: image.float() / 255 for key, image in images.items()}
        if observed is not None:
            found = {key: image.unflatten(0, (len(indices), len(observed))) for key, image in found.items()}
        return found | self.without_images(indices, deltas, observed)

    def image_sample(self, camera: str, indices: Sequence[int]) -> np.ndarray:
        """Return images of a camera (N, H, W, 3) uint8: those asked for, or what ``SAMPLE_BYTES`` hold."""
        if not self._sample:
            largest = max(3 * one.width * one.height for one in self.contract.cameras)
            count = max(2, min(len(indices), SAMPLE_BYTES // largest))
            picked = np.asarray(indices)[np.linspace(0, len(indices) - 1, count).round().astype(int)]
            found = list(self._loader([[index] for index in picked.tolist()], 0))
            self._sample = {
                key: np.concatenate([images[key].numpy() for images in found]).transpose(0, 2, 3, 1) for key in found[0]
            }
        return self._sample[f"observation.images.{camera}"]

    def fingerprint(self) -> str:
        """Return a checksum of the numbers and of the sizes of the files with the images."""
        if self._checksum is not None:
            return str(self._checksum)
        value = 0
        for array in (self.states, self.actions, self._end, self.source):
            value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
        if self.person.any():
            value = zlib.crc32(self.person.tobytes(), value)
        for root in self._files:
            files = sorted(path for name in ("data", "videos") for path in (root / name).rglob("*") if path.is_file())
            sizes = [f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in files]
            value = zlib.crc32("\n".join(sizes).encode(), value)
        self._checksum = f"{STREAMED}{zlib.crc32(chr(10).join(self.tasks).encode(), value):08x}"
        return self._checksum

    def _loader(self, batches: Any, workers: int) -> Any:
        """Return an iterable of camera images (B, 3, H, W) uint8, one dict a batch."""
        import torch

        how: dict[str, Any] = {"generator": torch.Generator()}  # else it draws from the training's own
        if workers:  # not forked: this process may have threads that hold locks
            how |= {"num_workers": workers, "multiprocessing_context": "spawn"}
        return torch.utils.data.DataLoader(self._frames, batch_sampler=batches, **how)  # type: ignore[arg-type]


class _Draws:
    """The steps whose images each training step's batch shows, drawn when they are asked for."""

    def __init__(
        self,
        data: TrainingData,
        seed: int,
        steps: range,
        size: int,
        weights: Sequence[float] | None,
        observed: Sequence[int] | None,
    ) -> None:
        self._data, self._seed, self._steps, self._size, self._weights = data, seed, steps, size, weights
        self._observed = observed

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[np.ndarray]:
        for step in self._steps:
            indices = self._data.sample_indices(self._seed, step, self._size, self._weights)
            yield self._data.seen_steps(indices, self._observed).ravel()


class _Frames:
    """Images of inputs, from LeRobotDatasets that each process opens for itself."""

    def __init__(self, parts: Sequence[tuple[Path, Mapping[str, str]]], source: np.ndarray, rows: np.ndarray) -> None:
        """Take what to open.

        Args:
            parts: folder of each data set, and its camera -> feature.
            source: (F,) data set of each input.
            rows: (F,) its row there.
        """
        self._parts, self._source, self._rows = parts, source, rows
        self._opened: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return an input's images (3, H, W) uint8.

        Raises:
            ValueError: LeRobot has another row there.
        """
        part, row = int(self._source[index]), int(self._rows[index])
        root, cameras = self._parts[part]
        if part not in self._opened:
            from lerobot.datasets.lerobot_dataset import LeRobotDataset

            self._opened[part] = LeRobotDataset(f"local/{root.name}", root=root, video_backend=video_backend())
        item = self._opened[part][row]
        if int(item["index"]) != row:
            raise ValueError(
                f"'{root}': row {row} has index {int(item['index'])}, out of order: write or fetch it again"
            )
        # As bytes: a fourth of the floats on the way from a worker. Back by / 255 they are the same floats.
        return {f"observation.images.{name}": (item[key] * 255).round().byte() for name, key in cameras.items()}


def _without_images(rows: EpisodeRows, contract: RobotContract) -> Episode:
    """Return rows as an episode, to be checked like any."""
    dt_ns = round(1e9 * contract.dt_s)
    steps = [
        Step(Observation((k + 1) * dt_ns, {}, state, task), action, wish)
        for k, (state, action, wish, task) in enumerate(
            zip(rows.states, rows.actions, rows.wishes, rows.tasks, strict=True)
        )
    ]
    return Episode(f"episode_{rows.files.index:06d}", rows.tasks[0], steps, contract.control_hz)
