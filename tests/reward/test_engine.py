# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest

from lrm_ros.config import RewardConfig
from lrm_ros.reward.engine import RewardEngine, combine, episode_frames
from lrm_ros.reward.fake import FakeModel
from lrm_ros.reward.models import MODES
from lrm_ros.types import VIDEO_HEADS, Episode, Frame, Observation, Reward, RewardQuery, Step, Unscored

TASK = "put the toy giraffe in the bowl"


def shade(step: int, light: int) -> Frame:
    return Frame(step, "front", np.full((4, 4, 3), light, np.uint8))


class Counting(FakeModel):
    """The fake model, remembering the batches it was asked."""

    def __init__(self):
        self.batches: list[list[RewardQuery]] = []

    def score(self, queries, readout="forward"):
        self.batches.append(list(queries))
        return super().score(queries, readout)


class Broken(FakeModel):
    def score(self, queries, readout="forward"):
        raise RuntimeError("CUDA out of memory")


def engine(model=None, **settings) -> RewardEngine:
    return RewardEngine(RewardConfig(**{"model": "fake", **settings}), model or FakeModel())


def value(answer: Reward | Unscored) -> float:
    assert isinstance(answer, Reward), answer
    return answer.value


def reason(answer: Reward | Unscored) -> str:
    assert isinstance(answer, Unscored), answer
    return answer.reason


class Leaning(Counting):
    """Prefers what it sees second by 0.3, whatever the frames show; knows a frame's light, and says nothing of 13."""

    def score(self, queries, readout="forward"):
        self.batches.append(list(queries))
        answers: list[Reward | Unscored] = []
        for query in queries:
            lights = [int(frame.image[0, 0, 0]) for frame in query.frames]
            if 13 in lights and lights[0] > lights[-1]:
                answers.append(Unscored(query.stamp_ns, query.head, "unlucky"))
            elif query.head == "contrastive":
                value = float(np.clip((lights[1] - lights[0]) / 255 + 0.3, -1, 1))
                answers.append(Reward(query.stamp_ns, query.head, value, "leaning", 0.0, 0.9 if value > 0.3 else 0.7))
            else:
                answers.append(Reward(query.stamp_ns, query.head, 0.5, "leaning", 0.0))
        return answers


def contrast(first: int, second: int) -> RewardQuery:
    return RewardQuery(TASK, "contrastive", (shade(1, first), shade(2, second)))


def test_asked_in_both_orders_a_place_that_the_model_prefers_counts_nothing():
    queries = [contrast(9, 9), RewardQuery(TASK, "progress", (shade(2, 9),)), contrast(51, 0), contrast(0, 13)]
    one, model = Leaning(), Leaning()
    assert [round(value(a), 2) for a in engine(one, mode="tri").score(queries[:3])] == [0.3, 0.5, 0.1]
    answers = engine(model, mode="tri", both_orders=True).score(queries)
    assert [round(value(a), 6) for a in answers[:3]] == [0.0, 0.5, -0.2]
    assert reason(answers[3]) == "unlucky" and answers[3].stamp_ns == 2
    assert [a.mass for a in answers[:3] if isinstance(a, Reward)] == [0.7, None, 0.7]
    assert [a.stamp_ns for a in answers] == [2, 2, 2, 2] and len(one.batches) == len(model.batches) == 1
    assert [len(batch) for batch in (*one.batches, *model.batches)] == [3, 7]


def test_a_stream_is_paid_by_both_orders_and_its_sign_of_equal_frames_is_none():
    watch = engine(Leaning(), mode="contrastive", interval=1, both_orders=True, contrastive="sign")
    signals = [watch.step({"front": shade(i, light)}, TASK)["front"].signal for i, light in enumerate((9, 9, 60, 20))]
    assert signals == [None, 0.0, 1.0, -1.0]


def test_every_kth_frame_is_judged_from_the_first_on_and_held_in_between():
    model = Counting()
    watch = engine(model, mode="progress", interval=3, scale=2.0)
    helds = [watch.step({"front": shade(i, 10 * i)}, TASK)["front"] for i in range(7)]
    assert [held.fresh for held in helds] == [True, False, False, True, False, False, True]
    assert [held.answers["progress"].stamp_ns for held in helds] == [0, 0, 0, 3, 3, 3, 6]
    assert helds[4].signal == pytest.approx(2 * 30 / 255)
    assert value(helds[4].answers["progress"]) == pytest.approx(30 / 255)
    assert len(model.batches) == 3


def test_contrastive_compares_with_the_frame_judged_before_and_is_unscored_without_one():
    model = Counting()
    watch = engine(model, mode="contrastive", interval=2)
    helds = [watch.step({"front": shade(i, 10 * i)}, TASK)["front"] for i in range(4)]
    assert isinstance(helds[1].answers["contrastive"], Unscored) and helds[1].signal is None
    assert helds[2].signal == 1.0
    (query,) = model.batches[0]
    assert [frame.stamp_ns for frame in query.frames] == [0, 2]


def test_progress_shows_the_first_frame_of_the_episode_when_asked_to():
    model = Counting()
    watch = engine(model, mode="progress", interval=1, initial_image=True)
    for i in range(3):
        watch.step({"front": shade(i, i)}, TASK)
    assert [frame.stamp_ns for frame in model.batches[2][0].frames] == [0, 2]


class Doubtful(FakeModel):
    """Answers 0.2 to contrastive, 0.6 to all else, with a mass that is the brightness of the judged frame."""

    def score(self, queries, readout="forward"):
        return [
            Reward(
                q.stamp_ns,
                q.head,
                0.2 if q.head == "contrastive" else 0.6,
                "d",
                0.0,
                float(q.frames[-1].image[0, 0, 0]),
            )
            for q in queries
        ]


def test_an_answer_that_the_model_would_hardly_give_is_unscored_and_spoils_no_other():
    watch = engine(Doubtful(), mode="progress", interval=1, min_mass=0.5)
    held = watch.step({"a": shade(0, 0), "b": shade(0, 1)}, TASK)
    assert "have 0 probability together, 0.5 is the least" in reason(held["a"].answers["progress"])
    assert held["a"].signal is None and value(held["b"].answers["progress"]) == 0.6
    verdicts = watch.judge_all([("a", TASK, [shade(0, 0)]), ("b", TASK, [shade(0, 1)])])
    assert [math.isnan(verdict.score) for verdict in verdicts] == [True, False]
    assert engine(Doubtful(), mode="progress", min_mass=0.0).judge([shade(0, 0)], TASK).score == 0.6


def test_sign_and_binary_are_paid_instead_of_expectations_and_the_judge_keeps_those():
    watch = engine(Doubtful(), mode="tri", interval=1, contrastive="sign", completion="binary")
    watch.step({"front": shade(0, 1)}, TASK)
    held = watch.step({"front": shade(1, 1)}, TASK)["front"]
    assert [value(held.answers[head]) for head in ("contrastive", "progress", "completion")] == [1.0, 0.6, 1.0]
    assert value(held.answers["tri"]) == pytest.approx((1 + 0.6 + 1) / 3)
    assert watch.judge([shade(0, 1)], TASK).score == 0.6
    plain = engine(Doubtful(), mode="tri", interval=1)
    plain.step({"front": shade(0, 1)}, TASK)
    answers = plain.step({"front": shade(1, 1)}, TASK)["front"].answers
    assert [value(answers[head]) for head in ("contrastive", "completion")] == [0.2, 0.6], "the default"


def test_the_last_frame_of_an_episode_is_judged_whatever_the_count():
    watch = engine(mode="completion", interval=10)
    for i in range(4):
        watch.step({"front": shade(i, 0)}, TASK)
    held = watch.step({"front": shade(4, 255)}, TASK, last=["front"])["front"]
    assert held.fresh and held.signal == 1.0


def test_reset_begins_an_episode_of_one_stream_only():
    watch = engine(mode="contrastive", interval=2)
    for i in range(3):
        watch.step({"a": shade(i, i), "b": shade(i, i)}, {"a": TASK, "b": TASK})
    watch.reset("a")
    held = watch.step({"a": shade(3, 9), "b": shade(3, 9)}, TASK)
    assert held["a"].fresh and isinstance(held["a"].answers["contrastive"], Unscored)
    assert not held["b"].fresh and held["b"].signal == 1.0


def test_a_video_head_is_asked_with_all_judged_frames_of_the_stream_since_its_reset():
    model = Counting()
    watch = engine(model, mode="robometer", interval=2)
    for i in range(5):
        watch.step({"a": shade(i, 10 * i)}, TASK)
    watch.reset("a")
    held = watch.step({"a": shade(5, 50), "b": shade(6, 60)}, TASK)
    stamps = [[[frame.stamp_ns for frame in query.frames] for query in batch] for batch in model.batches]
    assert stamps == [[[0]], [[0, 2]], [[0, 2, 4]], [[5], [6]]]
    assert held["b"].signal == pytest.approx(60 / 255)


@pytest.mark.parametrize("mode", MODES)
def test_judged_frames_are_kept_for_a_video_head_only(mode):
    watch = engine(mode=mode, interval=1)
    for i in range(3):
        watch.step({"front": shade(i, i)}, TASK)
    assert len(watch._windows["front"].judged) == (3 if mode in VIDEO_HEADS else 0)


def test_all_streams_that_are_due_are_judged_in_one_batch():
    model = Counting()
    watch = engine(model, mode="tri", interval=1)
    frames = {f"world{i}": shade(0, i) for i in range(5)}
    watch.step(frames, TASK)
    watch.step({name: shade(1, 100) for name in frames}, {name: f"{TASK} {name}" for name in frames})
    assert [len(batch) for batch in model.batches] == [10, 15]
    assert {query.task for query in model.batches[1]} == {f"{TASK} {name}" for name in frames}


def test_tri_is_the_weighted_sum_with_contrastive_mapped_to_the_unit_interval():
    answers = {
        "contrastive": Reward(5, "contrastive", -0.5, "m"),
        "progress": Reward(5, "progress", 0.4, "m"),
        "completion": Reward(5, "completion", 1.0, "m"),
    }
    tri = combine(answers, (0.5, 0.3, 0.2))
    assert isinstance(tri, Reward) and tri.head == "tri" and tri.stamp_ns == 5
    assert tri.value == pytest.approx(0.5 * 0.25 + 0.3 * 0.4 + 0.2 * 1.0)


def test_tri_is_unscored_when_a_part_is_unless_that_part_has_no_weight():
    answers: dict[str, Reward | Unscored] = {
        "contrastive": Unscored(5, "contrastive", "no earlier frame"),
        "progress": Reward(5, "progress", 0.4),
        "completion": Reward(5, "completion", 1.0),
    }
    tri = combine(answers, (1 / 3, 1 / 3, 1 / 3))
    assert tri == Unscored(5, "tri", "contrastive is unscored: no earlier frame")
    assert value(combine(answers, (0.0, 0.5, 0.5))) == pytest.approx(0.7)


def test_a_model_that_raises_leaves_queries_unscored_with_the_reason_and_no_old_value_lives_on():
    watch = engine(mode="progress", interval=1)
    assert watch.step({"front": shade(0, 100)}, TASK)["front"].signal is not None
    watch.model = Broken()
    held = watch.step({"front": shade(1, 100)}, TASK)["front"]
    assert held.signal is None and "CUDA out of memory" in reason(held.answers["progress"])


@pytest.mark.parametrize("error", [TypeError("no tensor"), KeyError("pixels"), MemoryError("no memory")], ids=repr)
def test_an_error_in_the_code_of_a_model_is_unscored_as_well(monkeypatch, error):
    def fail(*_):
        raise error

    watch = engine(mode="progress", interval=1)
    monkeypatch.setattr(watch.model, "score", fail)
    said = reason(watch.step({"front": shade(0, 100)}, TASK)["front"].answers["progress"])
    assert f"model 'fake' failed: {type(error).__name__}: {error}" in said


def test_a_model_with_another_number_of_answers_is_unscored(monkeypatch):
    watch = engine(mode="tri", interval=1)
    monkeypatch.setattr(watch.model, "score", lambda queries, readout: FakeModel().score(queries[:1], readout))
    answers = watch.step({"front": shade(0, 100)}, TASK)["front"].answers
    assert "1 answers to 2 queries" in reason(answers["progress"]) and "1 answers" in reason(answers["completion"])


def test_without_a_task_frames_are_unscored():
    held = engine(mode="progress").step({"front": shade(0, 100)}, "")["front"]
    assert "no task" in reason(held.answers["progress"])


def test_the_judge_keeps_an_episode_when_its_last_frames_are_done():
    judge = engine(judge_frames=2, judge_threshold=0.6)
    lights = {"done": [0, 0, 255, 255], "late": [0, 0, 0, 255], "never": [0, 0, 0, 0], "empty": []}
    verdicts = judge.judge_all([(k, TASK, [shade(i, x) for i, x in enumerate(v)]) for k, v in lights.items()])
    assert [verdict.keep for verdict in verdicts] == [True, False, False, False]
    assert [verdict.score for verdict in verdicts[:3]] == [1.0, 0.5, 0.0]
    assert math.isnan(verdicts[3].score) and "no frames" in verdicts[3].reason


def test_the_judge_does_not_keep_an_episode_it_could_not_score():
    verdict = engine(Broken()).judge([shade(0, 255)], TASK, "e")
    assert not verdict.keep and math.isnan(verdict.score) and "CUDA out of memory" in verdict.reason


def test_an_episode_that_breaks_the_batch_spoils_no_other_and_a_blank_task_is_not_asked(monkeypatch):
    judge = engine(judge_frames=2)
    asked = []

    def score(queries, readout):
        asked.append(len(queries))
        if any(query.task == "odd" for query in queries):
            raise KeyError("odd")
        return FakeModel().score(queries, readout)

    monkeypatch.setattr(judge.model, "score", score)
    tasks = {"a": TASK, "b": "odd", "c": " \n", "d": TASK}
    verdicts = judge.judge_all([(name, task, [shade(i, 255) for i in range(3)]) for name, task in tasks.items()])
    assert [verdict.keep for verdict in verdicts] == [True, False, False, True]
    assert asked[0] == 6 and "KeyError" in verdicts[1].reason
    assert verdicts[2].reason == "not judged: its task text is blank"
    asked.clear()
    assert judge.judge_all([("c", "", [shade(0, 255)])])[0].keep is False and asked == []


def test_live_and_offline_give_the_same_answers():
    frames = [shade(i, 37 * i % 251) for i in range(12)]
    watch = engine(mode="tri", interval=4)
    live = [watch.step({"front": frame}, TASK)["front"] for frame in frames]
    judged = [0, 4, 8]
    offline = engine().score(
        [
            RewardQuery(TASK, head, (frames[i - 4], frames[i]) if head == "contrastive" else (frames[i],))
            for i in judged[1:]
            for head in ("contrastive", "progress", "completion")
        ]
    )
    values = [value(live[i].answers[head]) for i in judged[1:] for head in ("contrastive", "progress", "completion")]
    assert values == [value(answer) for answer in offline]


def test_frames_of_an_episode_come_once_each_and_an_unknown_camera_is_named():
    held = shade(1, 1)
    state = np.zeros(6, np.float32)
    steps = [Step(Observation(i, {"front": held}, state, TASK), state, state) for i in range(3)]
    episode = Episode("e", TASK, steps, 10.0, final=Observation(9, {"front": shade(9, 9)}, state, TASK))
    assert [frame.stamp_ns for frame in episode_frames(episode, "front")] == [1, 9]
    with pytest.raises(ValueError, match="no frames of camera 'side', only of \\['front'\\]"):
        episode_frames(episode, "side")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "complete"}, "'complete' is unknown"),
        ({"interval": 0}, "interval must be at least 1"),
        ({"judge_frames": 0}, "judge_frames"),
        ({"judge_threshold": 1.5}, "judge_threshold"),
        ({"weights": (0.5, 0.5, 0.5)}, "sum to 1"),
        ({"weights": (1.5, -0.5, 0.0)}, "at least 0"),
        ({"scale": float("nan")}, "scale must be finite"),
        ({"contrastive": "signs"}, "contrastive must be 'expectation' or 'sign', got 'signs'"),
        ({"completion": "sign"}, "completion must be 'expectation' or 'binary', got 'sign'"),
        ({"readout": "guess"}, "readout must be 'forward' or 'reason' or 'generate', got 'guess'"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        engine(**settings)
