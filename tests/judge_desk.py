# SPDX-License-Identifier: Apache-2.0
"""A judge that asks a reward node, both in this process: the judge waits in a thread while the test spins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config import ImproverConfig, RobotContract
from lrm_ros.record.writer import JournalWriter
from lrm_ros.ros.control import Control
from lrm_ros.ros.judge import Judge
from lrm_ros.types import Frame

TASK = "put the toy in the bowl"
DT = 100_000_000


def shade(step: int, light: int) -> Frame:
    return Frame(step * DT, "front", np.full((8, 8, 3), light, np.uint8))


def noise_journal(path: Path, length: int = 20) -> Path:
    """A finished journal of frames that all differ."""
    rng = np.random.default_rng(3)
    writer = JournalWriter(path, TASK, RobotContract(), "policy", "png")
    for step in range(1, length + 1):
        writer.state(step * DT, [0.0] * 6)
        writer.frame(Frame(step * DT, "front", rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)))
        writer.sent(step * DT, np.zeros(6, np.float32))
    return writer.finish(outcome=None)


class Asker:
    """A node with a judge; ``ask`` calls one of its methods and spins until it returns or raises."""

    def __init__(
        self, spin, probe, answer_s: float = 60.0, find_s: float = 60.0, cameras: Sequence[str] = (), **settings: Any
    ) -> None:
        self.spin = spin
        self.control = Control(probe, nodes=("reward",))
        config = ImproverConfig(**{"model": "fake", **settings})
        self.judge = Judge(probe, self.control, config, answer_s, find_s, cameras)
        self._outcome: list[Any] = []
        self._thread: threading.Thread | None = None

    def begin(self, method: Callable[..., Any], *arguments: Any) -> None:
        def work() -> None:
            try:
                self._outcome.append(method(*arguments))
            except BaseException as error:
                self._outcome.append(error)

        self._outcome = []
        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def end(self) -> Any:
        self.spin.until(lambda: self._outcome, 120, "the judge's answer")
        (outcome,) = self._outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def ask(self, method: Callable[..., Any], *arguments: Any) -> Any:
        self.begin(method, *arguments)
        return self.end()

    def completion(self, frames: Sequence[Frame]) -> Any:
        return self.ask(self.judge.completion, frames, TASK, "e")
