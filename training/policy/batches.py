# SPDX-License-Identifier: Apache-2.0
"""Episodes in RAM as training batches: what LeRobotDataset gives with delta_timestamps, without decoding twice."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from lrm_ros.config import RobotContract
from lrm_ros.contract import check_episode, has_images
from lrm_ros.types import Episode

MIN_STD_RAD = 0.01
"""Lower bound of the standard deviation that normalises joints: one that hardly moved in the data must not blow up."""


class TrainingData:
    """Steps of several data sets in flat arrays; samples seeded batches of (observation, action chunk).

    A step without an image is never an input, but its action is part of the chunks of the steps before it.

    Attributes:
        images: camera -> (F, H, W, 3) uint8, F = number of steps with an image.
        states: (S, D) float32 [rad], S = number of steps.
        actions: (S, D) float32 [rad].
        inputs: (N,) step index of each input; N = F, or less for a policy that looks back.
        source: (N,) index of the data set of each input.
        tasks: language instruction of each input (N).
        person: (S,) whether a person led, who had taken over from a policy.
        weight: (N,) how likely each input is, relative to others; ``None``: all alike.
    """

    def __init__(self, datasets: Sequence[Sequence[Episode]], contract: RobotContract, label: str = "action") -> None:
        """Copy the episodes into flat arrays.

        Args:
            datasets: episodes of each data set.
            contract: cameras, joints and rate that every episode must have.
            label: ``"action"`` (what was sent to the arm) or ``"wish"`` (what was asked for, before exploration).

        Raises:
            ValueError: an empty data set, or an episode that does not fit the contract.
        """
        if label not in ("action", "wish"):
            raise ValueError(f"label must be 'action' or 'wish', got '{label}'")
        states: list[np.ndarray] = []
        actions: list[np.ndarray] = []
        inputs: list[int] = []
        source: list[int] = []
        end: list[int] = []
        person: list[bool] = []
        begin: list[int] = []
        self.tasks: list[str] = []
        images: dict[str, list[np.ndarray]] = {camera.name: [] for camera in contract.cameras}
        for index, episodes in enumerate(datasets):
            before = len(inputs)
            for episode in episodes:
                check_episode(episode, contract)
                begin.extend([len(states)] * len(episode.steps))
                end.extend([len(states) + len(episode.steps)] * len(episode.steps))
                for step in episode.steps:
                    if has_images(step, contract):
                        inputs.append(len(states))
                        source.append(index)
                        self.tasks.append(step.observation.task)
                        for name, stack in images.items():
                            stack.append(step.observation.frames[name].image)
                    states.append(step.observation.state)
                    actions.append(getattr(step, label))
                    person.append(step.intervention)
            if len(inputs) == before:
                raise ValueError(f"data set {index} has no step with an image; give one with at least one episode")
        self.contract = contract
        self.images = {name: np.stack(stack) for name, stack in images.items()}  # (F, H, W, 3)
        self.states = np.asarray(states, np.float32)  # (S, D)
        self.actions = np.asarray(actions, np.float32)  # (S, D)
        self.inputs = np.asarray(inputs)  # (F,)
        self.source = np.asarray(source)  # (F,)
        self.person = np.asarray(person, bool)  # (S,)
        self.weight: np.ndarray | None = None
        self._begin = np.asarray(begin)  # (S,) first step of the same episode
        self._end = np.asarray(end)  # (S,) one past the last step of the same episode
        self._image = np.full(len(states), -1)  # (S,) place of the step's image in `images`; -1: it has none
        self._image[self.inputs] = np.arange(len(self.inputs))
        self._checksum: int | str | None = None
        self.episodes = sum(len(episodes) for episodes in datasets)

    def look_back(self, observed: Sequence[int]) -> None:
        """Keep only the inputs that have an image of all steps that a policy looks at.

        Args:
            observed: these, relative to the input (``observation_delta_indices`` of the policy), 0 or less; those
                before an episode's first step are its first one, as LeRobot has it.

        Raises:
            ValueError: no input has them.
        """
        self.fingerprint()  # of all data
        whole = (self._image[self._steps(self.inputs, observed)] >= 0).all(axis=1)  # (N,)
        if not whole.any():
            raise ValueError(
                f"no step has an image of each of the {len(observed)} control steps that the policy looks at; record"
                " with a frame in every step (in the twin frame_every 1)"
            )
        self.inputs, self.source = self.inputs[whole], self.source[whole]
        self.weight = None if self.weight is None else self.weight[whole]
        self.tasks = [task for task, keep in zip(self.tasks, whole, strict=True) if keep]

    def keep_corrections(self, weight: float, says: Sequence[bool]) -> None:
        """Keep of data sets with a person's corrections only her steps, as HG-DAgger does.

        A chunk ends where she gives back: what the policy did after it is nothing to learn.

        Args:
            weight: how likely such a step is, relative to a step of another data set.
            says: of each data set whether it says who led; one in which a person did does so anyway.

        Raises:
            ValueError: a data set says who led, and a person never did.
        """
        self.fingerprint()  # of all data
        by_person = self.person[self.inputs]  # (N,)
        count = int(self.source[-1]) + 1
        led = np.bincount(self.source, by_person, count) > 0
        if missing := np.flatnonzero(np.asarray(says) & ~led).tolist():
            raise ValueError(
                f"data set {missing[0]} has column 'intervention', and no step with an image in which a person led; "
                "leave it out, or train without corrections"
            )
        kept = by_person | ~led[self.source]
        self.weight = np.where(by_person, weight, 1.0)[kept]
        self.inputs, self.source = self.inputs[kept], self.source[kept]
        self.tasks = [task for task, keep in zip(self.tasks, kept, strict=True) if keep]
        for step in range(len(self.person) - 1, -1, -1):
            if self.person[step]:
                goes_on = step + 1 < self._end[step] and self.person[step + 1]
                self._end[step] = self._end[step + 1] if goes_on else step + 1

    def _steps(self, steps: np.ndarray, deltas: Sequence[int]) -> np.ndarray:
        """Return steps (N, T) relative to others (N,), each within its episode."""
        wanted = steps[:, None] + np.asarray(deltas)
        return np.clip(wanted, self._begin[steps][:, None], self._end[steps][:, None] - 1)

    def sample_indices(self, seed: int, step: int, size: int, weights: Sequence[float] | None = None) -> np.ndarray:
        """Sample the inputs of one batch; a function of its arguments, so a resumed training gets the same batches.

        Args:
            seed: seed of the run.
            step: training step.
            size: batch size.
            weights: share of each data set; ``None``: every input is equally likely, but for ``weight``.

        Returns:
            (size,) indices into ``inputs``.
        """
        rng = np.random.default_rng((seed, step))
        if weights is None and self.weight is None:
            return rng.integers(len(self.inputs), size=size)
        if weights is None:
            assert self.weight is not None
            return rng.choice(len(self.inputs), size=size, p=self.weight / self.weight.sum())
        share = np.asarray(weights, float)
        if len(share) != self.source[-1] + 1 or (share < 0).any() or not share.sum() > 0:
            raise ValueError(f"weights must be one number >= 0 for each of {self.source[-1] + 1} data sets: {weights}")
        p = (share / share.sum() / np.bincount(self.source))[self.source]
        return rng.choice(len(self.inputs), size=size, p=p / p.sum())

    def batches(
        self,
        seed: int,
        steps: range,
        size: int,
        weights: Sequence[float] | None,
        deltas: Sequence[int],
        observed: Sequence[int] | None = None,
    ) -> Generator[dict[str, Any]]:
        """Yield the batch of each training step; see :meth:`sample_indices` and :meth:`batch`."""
        for step in steps:
            yield self.batch(self.sample_indices(seed, step, size, weights), deltas, observed)

    def batch(
        self, indices: np.ndarray, deltas: Sequence[int], observed: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Return a batch as LeRobot's collated LeRobotDataset items.

        Args:
            indices: (B,) indices into ``inputs``.
            deltas: steps of the action chunk relative to the observation (``action_delta_indices`` of the policy).
            observed: T observed steps relative to the input, see :meth:`look_back`; ``None``: no time axis.

        Returns:
            ``observation.images.<camera>`` (B, 3, H, W) float32 in [0, 1], ``observation.state`` (B, D), both with a
            time axis (B, T, ...) if asked for; ``action`` (B, K, D) with the first and last action of the episode
            repeated, ``action_is_pad`` (B, K), ``task`` B sentences.
        """
        import torch

        seen = self.seen_steps(indices, observed)
        batch: dict[str, Any] = {
            f"observation.images.{name}": torch.from_numpy(images[self._image[seen]]).movedim(-1, -3).float() / 255
            for name, images in self.images.items()
        }
        return batch | self.without_images(indices, deltas, observed)

    def seen_steps(self, indices: np.ndarray, observed: Sequence[int] | None) -> np.ndarray:
        """Return the steps that inputs (B,) look at: (B,), or (B, T) with ``observed``; see :meth:`look_back`."""
        steps = self.inputs[indices]
        return steps if observed is None else self._steps(steps, observed)

    def without_images(
        self, indices: np.ndarray, deltas: Sequence[int], observed: Sequence[int] | None = None
    ) -> dict[str, Any]:
        """Return what a batch has beside images; see :meth:`batch`."""
        import torch

        steps = self.inputs[indices]  # (B,)
        wanted = steps[:, None] + np.asarray(deltas)  # (B, K)
        inside = self._steps(steps, deltas)  # (B, K)
        return {
            "observation.state": torch.from_numpy(self.states[self.seen_steps(indices, observed)]),
            "action": torch.from_numpy(self.actions[inside]),
            "action_is_pad": torch.from_numpy(wanted != inside),
            "task": [self.tasks[index] for index in indices],
        }

    def statistics(self) -> dict[str, dict[str, np.ndarray]]:
        """Return normalisation statistics computed by LeRobot's own code.

        A joint that hardly moves has a floor for each normalisation mode (deviation, range, quantiles): its noise of
        a thousandth of a radian would become an input of hundreds, and an output that is off by as much moves it.
        """
        from lerobot.datasets.compute_stats import get_feature_stats, sample_indices

        stats = {
            "observation.state": get_feature_stats(self.states, axis=0, keepdims=False),
            "action": get_feature_stats(self.actions, axis=0, keepdims=False),
        }
        for joint in stats.values():
            joint["std"] = np.maximum(joint["std"], MIN_STD_RAD)
            for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
                if low in joint:
                    short = np.maximum(2 * MIN_STD_RAD - (joint[high] - joint[low]), 0) / 2
                    joint[low], joint[high] = joint[low] - short, joint[high] + short
        for camera in self.contract.cameras:
            name, images = camera.name, self.image_sample(camera.name, sample_indices(len(self.inputs)))
            # Floats, because LeRobot 0.4 squares what it is given: with uint8 the deviation overflows to 0 (0.6: not).
            sample = images.transpose(0, 3, 1, 2).astype(np.float32)
            raw = get_feature_stats(sample, axis=(0, 2, 3), keepdims=True)
            stats[f"observation.images.{name}"] = {
                key: value if key == "count" else np.squeeze(value / 255, axis=0) for key, value in raw.items()
            }
        return stats

    def image_sample(self, camera: str, indices: Sequence[int]) -> np.ndarray:
        """Return images of a camera (N, H, W, 3) uint8, for its statistics."""
        return self.images[camera][indices]

    def fingerprint(self) -> int | str:
        """Return a checksum of the training data, all of it."""
        if self._checksum is not None:
            return self._checksum
        value = 0
        for array in (self.states, self.actions, self.inputs, self._end, self.source, *self.images.values()):
            value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
        if self.person.any():
            value = zlib.crc32(self.person.tobytes(), value)
        self._checksum = zlib.crc32("\n".join(self.tasks).encode(), value)
        return self._checksum


def jitter_hues(images: Any, seed: int, step: int, strength: float) -> Any:
    """Rotate the hue of each image at random: augmentation against policies that know a toy by its colour.

    Args:
        images: (B, 3, H, W) or (B, T, 3, H, W) float tensor in [0, 1]; the T of one row are turned alike.
        seed: seed of the run.
        step: training step; with ``seed`` it fixes the variation, so that a resumed training sees the same.
        strength: hues turn by up to ``strength * pi`` rad (1: any hue), brightness varies by up to a fifth of it; grey
            stays grey.

    Returns:
        Of the same shape, clipped to [0, 1].
    """
    import torch

    rng = np.random.default_rng((seed, step, 1))
    angle = rng.uniform(-np.pi, np.pi, len(images)) * strength
    gain = 1 + rng.uniform(-0.2, 0.2, (len(images), 1, 1)) * strength
    third, cos, sin = np.full((3, 3), 1 / 3), np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    turn = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    mix = gain * (third + cos * (np.eye(3) - third) + sin * turn)  # rotation about the grey axis (Rodrigues)
    return torch.einsum("bij,b...jhw->b...ihw", torch.from_numpy(mix).float(), images).clamp(0, 1)


def add_state_noise(states: Any, seed: int, step: int, std: float) -> Any:
    """Add Gaussian noise to the joint states of a training batch, all but the gripper's.

    In demonstrations the arm's pose already tells where it is going, and a policy that learns to follow it repeats its
    own first mistake; with noise it has to look.

    Args:
        states: (B, D) or (B, T, D) float tensor [rad]; the T of one row get the same noise.
        seed: seed of the run.
        step: training step.
        std: standard deviation [rad].
    """
    import torch

    noise = np.random.default_rng((seed, step, 2)).normal(0.0, std, (len(states), states.shape[-1]))
    noise[:, -1] = 0.0
    added = torch.from_numpy(noise).to(states.dtype)  # (B, D)
    return states + (added if states.ndim == 2 else added[:, None])
