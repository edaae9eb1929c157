# SPDX-License-Identifier: Apache-2.0
"""The collector's bookkeeping: verdicts, cutting, judging of journals."""

import json

import numpy as np
import pytest

from lrm_ros.config import CameraSpec, ImproverConfig, RewardConfig, RobotContract
from lrm_ros.record.writer import JournalWriter
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.verdict import completion_queries
from lrm_ros.reward.views import joined
from lrm_ros.ros.collector import MARGIN, Collector, cut, read_verdicts
from lrm_ros.ros.control import EpisodeError
from lrm_ros.types import Episode, Frame, Observation, Step

DT_NS = 100_000_000


def _episode(length: int) -> Episode:
    steps = []
    for t in range(length):
        image = np.full((8, 8, 3), t, np.uint8)
        observation = Observation(t * DT_NS, {"front": Frame(t * DT_NS, "front", image)}, np.zeros(6), "put it away")
        steps.append(Step(observation, np.full(6, t, np.float32), np.full(6, t, np.float32)))
    return Episode("e", "put it away", steps, 10.0)


def test_an_episode_is_cut_a_margin_after_it_was_done():
    short = cut(_episode(40), done_ns=20 * DT_NS)
    assert [step.observation.stamp_ns for step in short.steps] == [t * DT_NS for t in range(21 + MARGIN)]


def test_an_episode_done_at_its_end_is_whole():
    whole = _episode(10)
    assert len(cut(whole, done_ns=9 * DT_NS).steps) == 10


def test_a_verdict_line_cut_off_by_a_kill_is_dropped_and_the_rest_kept(tmp_path):
    rows = [{"episode_id": f"{n}_0", "keep": True} for n in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "verdicts.jsonl").write_text(text[:-7])
    assert sorted(read_verdicts(tmp_path)) == ["0_0", "1_0"]
    # What is appended next must not run into the remains of the cut line.
    with (tmp_path / "verdicts.jsonl").open("a") as file:
        file.write(json.dumps(rows[2]) + "\n")
    assert sorted(read_verdicts(tmp_path)) == ["0_0", "1_0", "2_0"]


def test_a_folder_without_verdicts_has_none(tmp_path):
    assert read_verdicts(tmp_path / "new") == {}


@pytest.mark.parametrize("damage", ["{", '{"episode_id": 1', "not json"])
def test_a_damaged_verdict_in_the_middle_is_an_error(tmp_path, damage):
    (tmp_path / "verdicts.jsonl").write_text(damage + "\n" + json.dumps({"episode_id": "1_0"}) + "\n")
    with pytest.raises(json.JSONDecodeError):
        read_verdicts(tmp_path)


class Refusing:
    """The other nodes, whose recorder finds the episode faulty at its end."""

    count = 10

    def reset(self, seed: int) -> str:
        return f"seed {seed}"

    def start(self, **parameters) -> str:
        return "recorded"

    def stop(self, outcome: bool | None = None) -> str:
        raise EpisodeError("recorder/stop_episode: episode '10000_0' is not good: 'joint_states' stopped")

    def discard(self) -> str:
        raise EpisodeError("recorder/discard_episode: no episode is being recorded")

    def trigger(self, service: str) -> str:
        return "10"

    def set(self, node: str, values: dict) -> None: ...

    def wait_until(self, *_) -> None: ...

    def restart(self) -> None: ...


def test_a_faulty_episode_is_not_judged_and_ends_the_collection_with_its_reason(tmp_path):
    nodes = Refusing()
    collector = Collector(nodes, nodes, nodes, nodes, ("front",), ImproverConfig(model="fake"))
    with pytest.raises(EpisodeError, match="is not good: 'joint_states' stopped"):
        collector.demonstrate(tmp_path)
    assert not read_verdicts(tmp_path)


class Engine:
    """A judge in this process, by the rule of the loop's."""

    def __init__(self, cameras: tuple[str, ...]) -> None:
        settings = {"model": "fake", "mode": "completion", "judge_frames": 2, "judge_threshold": 0.7}
        self._engine = RewardEngine(RewardConfig(camera=",".join(cameras), **settings), FakeModel())
        self._cameras = cameras
        self.judge = self._engine.judge

    def completion(self, frames, task, episode_id):
        return joined(frames, self._engine.score(completion_queries(frames, task)), self._cameras)


def test_several_cameras_decide_whether_and_from_when_on_it_was_done(tmp_path):
    cameras = (CameraSpec("front", 8, 8), CameraSpec("wrist", 8, 8))
    writer = JournalWriter(tmp_path / "e.mcap", "put it away", RobotContract(cameras=cameras), "policy", "png")
    for k in range(1, 22):
        writer.state(k * DT_NS, [0.0] * 6)
        for camera, since in (("front", 4), ("wrist", 10)):
            writer.frame(Frame(k * DT_NS, camera, np.full((8, 8, 3), 255 if k >= since else 0, np.uint8)))
        writer.sent(k * DT_NS, np.zeros(6, np.float32))
    journal = writer.finish(outcome=None)
    nodes = Refusing()
    for names, done in ((("front",), 7), (("wrist",), 13), (("front", "wrist"), 13)):
        config = ImproverConfig(model="fake", judge_threshold=0.7)
        row = Collector(nodes, nodes, nodes, Engine(names), names, config)._judge(journal)
        assert row["keep"] and row["done_ns"] == done * DT_NS, names
