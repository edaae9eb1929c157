# SPDX-License-Identifier: Apache-2.0
"""Keyframes become examples of the three heads: right labels, balanced, with negatives, the same for the same seed."""

import pickle
from collections import Counter, defaultdict
from functools import partial

import numpy as np
import pytest
from numbered import number_in, numbered, write_video  # type: ignore[import-not-found]

from lrm_ros.reward.heads import HEADS
from lrm_ros.training.reward.data.keyframes import write_keyframes
from lrm_ros.training.reward.data.shards import read_rows
from lrm_ros.training.reward.data.sources.episode import Entry, SourceEpisode, array_reader
from lrm_ros.training.reward.data.sources.video import Video
from lrm_ros.training.reward.data.table import load_keyframes
from lrm_ros.training.reward.train.examples.dataset import Example, load_examples, make_examples
from lrm_ros.training.reward.train.examples.sampling import ExampleMix, round_to_tenths, sample_balanced
from lrm_ros.training.reward.train.rows import label_of, query_of

LENGTH = 21
NONE = ExampleMix(wrong_task=0, reversed=0, stopped=0)
DRAWERS = ("open the drawer", "Open the drawer.", "close  the drawer")  # two of them are the same text


def first_number(source: int, number: int) -> int:
    return 1000 * source + 25 * number


def made(source: str, place: int, number: int, task: str, **about) -> SourceEpisode:
    images = np.stack([numbered(first_number(place, number) + k) for k in range(LENGTH)])
    return SourceEpisode(source, str(number), task, 10.0, LENGTH, array_reader(images), **about)


def drawers(number: int) -> SourceEpisode:
    """Demonstrations by people, labelled by time."""
    return made("drawers", 0, number, DRAWERS[number % 3])


def cubes(number: int) -> SourceEpisode:
    """A simulator's task in two wordings: a third succeed at 7/10, a third drop the cube, a third undo it."""
    rising = np.minimum(np.arange(LENGTH) / 14, 1).astype(np.float32)
    kind = ("success", "dropped", "reversed")[number % 3]
    progress = {"success": rising, "dropped": np.minimum(rising, 1.4 - rising), "reversed": rising[::-1]}[kind]
    done = progress >= 1
    words = ("lift the cube", "pick the cube up")[number % 2]
    return made("cubes", 1, number, words, kind=kind, success=bool(done[-1]), progress=progress, done=done)


def failures(number: int) -> SourceEpisode:
    """Episodes that failed; nothing says how far they came."""
    return made("failures", 2, number, "fold the towel", success=False, kind="failure")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    top = tmp_path_factory.mktemp("keyframes")
    counts = {drawers: 30, cubes: 36, failures: 12}
    sources = {
        make.__name__: [Entry(make.__name__, str(n), partial(make, n)) for n in range(count)]
        for make, count in counts.items()
    }
    video = Video(write_video(top / "video.mp4", range(3000, 3000 + LENGTH), g=2))
    filmed = SourceEpisode("filmed", "0", "press the button", video.fps, LENGTH, video.read, True)
    write_keyframes({**sources, "filmed": [Entry("filmed", "0", lambda: filmed)]}, top / "out")
    return top / "out"


@pytest.fixture(scope="module")
def rows(folder):
    """(source, number of the image) -> row."""
    found = {}
    for row in read_rows(folder):
        place = {"drawers": 0, "cubes": 1, "failures": 2, "filmed": 3}[row["source"]]
        found[first_number(place, int(row["episode_id"])) + row["frame"]] = row
    return found


def examples_of(folder, head, **about) -> list[Example]:
    return list(load_examples(folder, head, **about))


def shown(example: Example, rows) -> list[dict]:
    """The keyframes whose images an example shows, known by their numbers."""
    return [rows[number_in(image)] for image in example.images]


def text(task: str) -> str:
    return " ".join(task.lower().split()).rstrip(".")


@pytest.mark.parametrize("head", HEADS)
def test_every_example_is_a_question_that_its_head_can_ask_and_an_answer_that_it_reads(folder, head):
    examples = examples_of(folder, head)
    assert len(examples) > 100
    for example in examples:
        assert example.head == head and HEADS[head].messages(query_of(example))
        assert HEADS[head].parse(example.answer) == example.value == label_of(example)


def test_plain_progress_is_the_label_of_the_current_frame(folder, rows):
    examples = examples_of(folder, "progress", mix=NONE)
    alone = 0
    for example in examples:
        *before, current = shown(example, rows)
        assert example.value == round(current["progress"] * 10) / 10 and example.task == current["task"]
        assert (example.source, example.kind) == (current["source"], current["kind"])
        assert [row["position"] for row in before] in ([], [0])
        assert {row["episode_id"] for row in before} <= {current["episode_id"]}
        alone += not before
    assert 0.4 < alone / len(examples) < 0.6
    assert {"dropped", "reversed", "success", "demonstration"} == {example.kind for example in examples}
    for share, count in ((0.0, {1}), (1.0, {2})):
        mix = ExampleMix(initial=share, wrong_task=0, reversed=0, stopped=0)
        assert {len(example.jpegs) for example in examples_of(folder, "progress", mix=mix)} == count


def test_labels_from_the_state_are_kept_whatever_the_time(folder, rows):
    undone = [e for e in examples_of(folder, "progress", mix=NONE) if e.kind == "reversed"]
    assert undone
    for example in undone:
        assert example.value == round(min(1, (20 - shown(example, rows)[-1]["frame"]) / 14) * 10) / 10


def test_progress_with_the_text_of_another_task_is_zero(folder, rows):
    wrong = [e for e in examples_of(folder, "progress") if e.kind == "wrong_task"]
    tasks = {text(row["task"]) for row in rows.values()}
    own_source = 0
    for example in wrong:
        current = shown(example, rows)[-1]
        assert example.value == 0 and text(example.task) != text(current["task"]) and text(example.task) in tasks
        if current["source"] == "drawers":
            own_source += "drawer" in example.task
        if current["source"] == "cubes":
            assert "cube" not in example.task  # one task in other words
    assert own_source


def test_a_reversed_clip_begins_with_its_last_frame_and_keeps_the_labels_of_its_frames(folder, rows):
    clips = [e for e in examples_of(folder, "progress") if e.kind == "reversed_clip"]
    assert {"drawers", "cubes"} <= {e.source for e in clips}
    for example in clips:
        initial, current = shown(example, rows)
        assert initial["episode_id"] == current["episode_id"] and initial["position"] == 10
        if example.source == "drawers":
            time = (10 - current["position"]) / 10  # of the clip that is played backwards
            assert example.value == pytest.approx(1 - time)
        else:
            assert example.value == round(current["progress"] * 10) / 10


@pytest.mark.parametrize("head", ["progress", "completion"])
def test_a_clip_that_stopped_ends_before_the_task_is_done(folder, rows, head):
    stopped = [e for e in examples_of(folder, head) if e.kind == "stopped_clip"]
    assert {e.source for e in stopped} >= {"drawers", "cubes"}
    for example in stopped:
        current = shown(example, rows)[-1]
        assert current["done"] is False and current["kind"] in ("demonstration", "success")
        assert current["position"] in ((5, 6, 7) if example.source != "cubes" else (4, 5, 6))
        assert example.value == (0 if head == "completion" else round(current["progress"] * 10) / 10)


def test_completion_is_what_the_state_or_the_end_of_a_demonstration_says(folder, rows):
    examples = examples_of(folder, "completion", mix=NONE)
    for example in examples:
        (current,) = shown(example, rows)
        assert current["done"] is bool(example.value)
    known = Counter(example.value for example in examples)
    assert known[1.0] / len(examples) > 0.3
    assert {e.value for e in examples if e.source == "failures"} == {0.0}
    for example in examples_of(folder, "completion"):
        if example.kind == "wrong_task":
            assert example.value == 0 and shown(example, rows)[0]["done"]


def test_pairs_are_of_one_episode_clearly_different_in_both_orders_and_judged_by_progress(folder, rows):
    seen, against_time = Counter(), 0
    for example in examples_of(folder, "contrastive"):
        a, b = shown(example, rows)
        assert (a["source"], a["episode_id"]) == (b["source"], b["episode_id"]) and example.task == a["task"]
        gain = b["progress"] - a["progress"]
        assert abs(gain) >= 0.1 - 1e-6 and example.value == np.sign(gain)
        against_time += (b["frame"] > a["frame"]) != (gain > 0)
        seen[a["source"], a["episode_id"], a["frame"], b["frame"]] += 1
        assert example.kind not in ("wrong_task", "reversed_clip", "stopped_clip")
    assert all(seen[s, e, b, a] == count for (s, e, a, b), count in seen.items())
    assert against_time > 50


@pytest.mark.parametrize("head", HEADS)
def test_sources_give_equally_many_and_small_ones_are_not_worn_out(folder, head):
    found = load_examples(folder, head, count=300, mix=ExampleMix(wrong_task=0, reversed=0, stopped=0, repeats=2))
    per_source = {name: sum(kinds.values()) for name, kinds in found.counts().items()}
    rows = [tuple(pair) for pair in found.sampled.rows.tolist()]
    assert max(Counter(rows).values()) <= 2
    if head == "progress":
        assert per_source == {"drawers": 139, "cubes": 139, "filmed": 22}
    elif head == "contrastive":
        assert per_source == {"drawers": 100, "cubes": 100, "filmed": 100}
    else:
        no = Counter(e.source for e in found if e.value == 0)
        assert no["filmed"] == 16 and max(no.values()) - min(no[s] for s in ("drawers", "cubes", "failures")) <= 1
    assert sum(per_source.values()) == 300


def test_heads_get_equally_many_and_the_shares_are_met(folder):
    sets = {head: load_examples(folder, head) for head in HEADS}
    labelled = len(sets["progress"])
    assert all(abs(len(found) - labelled) <= 1 for found in sets.values())
    kinds = Counter(sets["progress"].sampled.kinds)
    mix = ExampleMix()
    assert kinds["wrong_task"] == round(mix.wrong_task * labelled)
    assert kinds["stopped_clip"] == round(mix.stopped * labelled)


def test_the_same_seed_gives_the_same_examples_and_another_one_others(folder):
    for head in HEADS:
        one, again, other = (load_examples(folder, head, "train", seed, 80) for seed in (3, 3, 4))
        for a, b in zip(one, again, strict=True):
            assert (a.task, a.jpegs, a.value, a.kind) == (b.task, b.jpegs, b.value, b.kind)
        assert any(a.jpegs != b.jpegs for a, b in zip(one, other, strict=True))


def test_validation_and_training_share_no_episode(folder, rows):
    episodes = defaultdict(set)
    for split in ("train", "val"):
        for example in load_examples(folder, "progress", split):
            episodes[split] |= {(row["source"], row["episode_id"]) for row in shown(example, rows)}
            assert {row["split"] for row in shown(example, rows)} == {split}
    assert episodes["val"] and not episodes["train"] & episodes["val"]


def test_examples_can_be_sent_to_another_process(folder):
    found = load_examples(folder, "contrastive", count=4)
    copy = pickle.loads(pickle.dumps(found))
    assert copy[3].jpegs == found[3].jpegs
    with pytest.raises(IndexError):
        _ = found[4]


def test_one_task_alone_has_no_wrong_text_and_the_others_take_its_place(tmp_path):
    write_keyframes({"a": [Entry("cubes", str(n), partial(cubes, n)) for n in range(6)]}, tmp_path)
    examples = load_examples(tmp_path, "progress", count=40)
    assert len(examples) == 40 and "wrong_task" not in examples.sampled.kinds


def test_a_split_without_episodes_gives_no_examples(tmp_path):
    write_keyframes({"a": [Entry("cubes", "1", partial(cubes, 1))]}, tmp_path)
    assert len(load_keyframes(tmp_path, "val")) == 0
    for head in HEADS:
        assert len(load_examples(tmp_path, head, "val")) == 0
    with pytest.raises(FileNotFoundError, match="lrm reward data"):
        load_examples(tmp_path / "nothing", "progress")


def test_a_small_source_is_used_no_more_often_than_allowed():
    source = np.array([0] * 3 + [1] * 100)
    sampled = sample_balanced(source, np.arange(103), 60, np.random.default_rng(0), 2)
    assert Counter(source[sampled].tolist()) == {0: 6, 1: 54} and max(Counter(sampled.tolist()).values()) == 2
    assert len(sample_balanced(source, np.arange(103), 999, np.random.default_rng(0), 1)) == 103
    assert len(sample_balanced(source, np.array([], int), 5, np.random.default_rng(0), 1)) == 0


def test_labels_go_to_the_nearest_answer_or_are_refused():
    assert round_to_tenths(np.array([0.0, 0.04, 0.16, 0.949, 1.0])).tolist() == [0.0, 0.0, 0.2, 0.9, 1.0]
    for bad in (float("nan"), float("inf"), -0.3, 1.06):
        with pytest.raises(ValueError, match="none of the answers"):
            round_to_tenths(np.array([0.5, bad]))


def test_wrong_requests_are_refused(folder):
    with pytest.raises(ValueError, match="unknown reward head 'speed'"):
        load_examples(folder, "speed")
    with pytest.raises(ValueError, match="must not be negative"):
        make_examples(load_keyframes(folder), "progress", -1, 0, NONE)
    for bad in ({"wrong_task": 1.2}, {"wrong_task": 0.6, "stopped": 0.6}, {"repeats": 0}, {"done": float("nan")}):
        with pytest.raises(ValueError, match=r"share|repeats"):
            ExampleMix(**bad)
