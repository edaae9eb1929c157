# SPDX-License-Identifier: Apache-2.0
import contextlib
import itertools
import json
import math

import numpy as np
import pytest

from lrm_ros.sim.behaviour import KINDS, behave
from lrm_ros.sim.tabletop.scenes import FAMILIES, PULL, SHAPES, draw_scene
from lrm_ros.training.reward.data.generate import generate, main, play_source
from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.maniskill import play_maniskill
from lrm_ros.training.reward.data.sources.metaworld import play_metaworld
from lrm_ros.training.reward.data.sources.rollouts import MAX_RANDOM_GAIN, draw_kind, labelled_episode
from lrm_ros.training.reward.data.sources.tabletop import play_tabletop
from lrm_ros.training.reward.data.sources.twin import play_twin
from lrm_ros.training.reward.train.tiny.data import load_frames


def first_seed_of(kind, source="maniskill/PushCube-v1"):
    return next(seed for seed in itertools.count() if draw_kind(source, seed) == kind)


def check(episode, source, size=96):
    frames = np.stack(list(episode.frames()))
    assert episode.source == source and episode.task.strip()
    assert frames.shape == (episode.length, size, size, 3) and frames.dtype == np.uint8
    assert frames.std() > 5, "the pictures show something"
    assert len(episode.progress) == len(episode.done) == episode.length >= 8
    assert episode.success == episode.done[-1]
    assert (episode.progress[episode.done] == 1.0).all()


@pytest.fixture(scope="module")
def maniskill():
    return list(play_maniskill("PushCube-v1", 60, seed=0))


def test_entries_are_numbered_by_seed_before_anything_is_simulated():
    entries = [
        next(play_twin(1, seed=7)),
        next(play_maniskill("PickCube-v1", 1, 8)),
        next(play_metaworld("push-v3", 1)),
    ]
    assert [(entry.source, entry.episode_id) for entry in entries] == [
        ("twin", "7"), ("maniskill/PickCube-v1", "8"), ("metaworld/push-v3", "0"),
    ]  # fmt: skip


@pytest.mark.parametrize("play", [play_maniskill, play_metaworld, play_tabletop])
def test_an_unknown_task_is_refused_with_the_known_ones(play):
    with pytest.raises(ValueError, match=r"'NoSuch-v1'.*; there are: .*"):
        next(play("NoSuch-v1", 1))


def test_half_of_the_episodes_are_successes_and_every_kind_is_drawn():
    kinds = [draw_kind("twin", seed) for seed in range(300)]
    assert set(kinds) == set(KINDS)
    assert 0.42 < kinds.count("success") / 300 < 0.58


def test_the_expert_pushes_the_cube_and_progress_rises_from_0_to_1(maniskill):
    episode = maniskill[first_seed_of("success")].open()
    check(episode, "maniskill/PushCube-v1")
    assert episode.kind == "success" and episode.success
    assert episode.progress[0] == 0.0 and episode.progress[-1] == 1.0
    assert np.diff(episode.progress).min() > -0.05
    assert 15 <= episode.length <= 60
    assert "cube" in episode.task and "{" not in episode.task


@pytest.mark.parametrize("kind", ["halted", "dropped", "missed", "random"])
def test_a_failure_of_each_kind_fails_and_its_labels_are_those_of_the_state(maniskill, kind):
    episode = maniskill[first_seed_of(kind)].open()
    check(episode, "maniskill/PushCube-v1")
    assert episode.kind == kind and not episode.success
    assert episode.progress[-1] < 0.95
    if kind == "dropped":
        assert episode.progress.max() > 0.4, "it lets go after it has begun to move the cube"
    if kind == "random":
        assert episode.progress[-1] <= episode.progress[0] + MAX_RANDOM_GAIN


def test_a_reversed_episode_begins_done_and_ends_at_the_start(maniskill):
    episode = maniskill[first_seed_of("reversed")].open()
    check(episode, "maniskill/PushCube-v1")
    assert episode.kind == "reversed" and not episode.success
    assert episode.done[0] and episode.progress[0] == 1.0 and episode.progress[-1] == 0.0


def test_the_same_seed_gives_the_same_scene_and_words_whatever_was_played_before(maniskill):
    entry = maniskill[first_seed_of("random")]
    first = entry.open()
    maniskill[first_seed_of("success")].open()
    again = entry.open()
    assert (first.task, first.kind, first.episode_id) == (again.task, again.kind, again.episode_id)
    np.testing.assert_array_equal(next(first.read([0])), next(again.read([0])))


def test_the_goal_that_maniskill_hides_from_cameras_is_visible():
    episode = next(play_maniskill("PickCube-v1", 1, first_seed_of("random", "maniskill/PickCube-v1"))).open()
    red, green, blue = next(episode.read([0])).astype(int).transpose(2, 0, 1)
    assert ((green > red + 60) & (green > blue + 60)).sum() > 10


def test_the_twins_episodes_carry_its_own_labels():
    episode = next(play_twin(1, seed=5_000_000)).open()
    check(episode, "twin")
    assert episode.fps == 5.0
    assert "toy" in episode.task


def test_random_motion_is_cut_where_it_is_no_nearer_to_the_goal_than_at_the_start():
    frames = np.zeros((20, 4, 4, 3), np.uint8)
    progress = np.concatenate([np.full(12, 0.05), np.full(8, 0.4)]).astype(np.float32)
    episode = labelled_episode("s", "0", "t", 5.0, "random", frames, progress, np.zeros(20, bool))
    assert episode.length == 12 and episode.progress[-1] == np.float32(0.05)


def test_a_failure_that_succeeds_is_no_failure_and_a_failed_expert_no_success():
    frames, done = np.zeros((9, 4, 4, 3), np.uint8), np.arange(9) == 8
    with pytest.raises(BadEpisode, match="halted motion that succeeded"):
        labelled_episode("s", "0", "t", 5.0, "halted", frames, done.astype(np.float32), done)
    failed = labelled_episode("s", "0", "t", 5.0, "success", frames, np.zeros(9, np.float32), done & False)
    assert failed.kind == "failed" and failed.success is False
    with pytest.raises(BadEpisode, match="fewer than 8 frames"):
        labelled_episode("s", "0", "t", 5.0, "halted", frames[:3], np.zeros(3, np.float32), np.zeros(3, bool))


def test_the_tabletop_never_shows_the_tasks_that_are_held_out():
    scenes = [draw_scene(family, np.random.default_rng(seed)) for family in FAMILIES for seed in range(400)]
    assert {scene.family for scene in scenes} == set(FAMILIES)
    for scene in scenes:
        assert (scene.family, scene.thing, scene.base) != ("stack", "cube", "other_cube")
        assert not (scene.family == "slide" and scene.thing == "cube" and abs(scene.heading) > PULL)
        assert "{" not in scene.instruction and len(set(scene.paints.values())) == len(scene.paints)
        named = [word for word in ("pull", "back") if word in scene.instruction.split()]
        assert bool(named) == (scene.family == "slide" and abs(scene.heading) > PULL)
        lying = [(scene.places[part], SHAPES[part]) for part in scene.places if part in SHAPES]
        assert all(place[2] == shape.half[2] for place, shape in lying)
        for (a, first), (b, second) in itertools.combinations(lying, 2):
            assert math.dist(a[:2], b[:2]) > math.hypot(*first.half[:2]) / 2 + math.hypot(*second.half[:2]) / 2
    assert len({scene.instruction for scene in scenes}) > 400


@pytest.mark.parametrize("family", FAMILIES)
def test_the_arm_does_what_the_instruction_says_and_the_labels_follow_it(family):
    entries = list(play_tabletop(family, 60))
    episode = entries[first_seed_of("success", f"tabletop/{family}")].open()
    check(episode, f"tabletop/{family}")
    assert episode.kind == "success" and episode.success
    assert episode.progress[0] == 0.0 and episode.progress[-1] == 1.0
    assert np.diff(episode.progress).min() > -0.1
    for entry in entries:  # what is dropped may still end where it belongs; such an episode is refused
        if draw_kind(entry.source, int(entry.episode_id)) == "dropped":
            with contextlib.suppress(BadEpisode):
                dropped = entry.open()
                break
    check(dropped, f"tabletop/{family}")
    assert not dropped.success and dropped.progress.max() > 0.4


def test_a_share_of_the_frames_is_kept_and_its_labels_are_those_of_the_whole():
    number = first_seed_of("success", "tabletop/lift")
    whole, part = (next(play_tabletop("lift", 1, number, keep)).open() for keep in (1.0, 0.4))
    assert 0.2 < part.length / whole.length < 0.65 and part.fps == pytest.approx(0.4 * whole.fps)
    everything = list(whole.frames())
    for frame, progress in zip(part.frames(), part.progress, strict=True):
        same = [at for at, other in enumerate(everything) if np.array_equal(frame, other)]
        assert any(abs(whole.progress[at] - progress) < 1e-3 for at in same)
    for keep in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"must be in \(0, 1\]"):
            next(play_tabletop("lift", 1, 0, keep))


def test_an_unknown_behaviour_is_refused():
    with pytest.raises(ValueError, match="kind 'sleep' is not one of success, halted"):
        next(behave(None, "sleep", np.random.default_rng(0)))


def test_shards_of_several_sources_are_written_once_and_read_by_the_training(tmp_path, capsys):
    names = ("maniskill/PushCube-v1", "twin")
    total = generate(names, tmp_path, 2, seed=5_000_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settings.json", "shard_0000.npz"]
    with np.load(tmp_path / "shard_0000.npz") as shard:
        about = [json.loads(str(line)) for line in shard["tasks"]]
        numbers = shard["episode"]
    assert {line["source"] for line in about} == set(names)
    assert [line["episode"] for line in about] == sorted(set(numbers.tolist())) and max(numbers) <= 3
    frames = load_frames([tmp_path])
    assert len(frames.images) == total["frames"] == len(numbers)
    assert frames.tasks[about[0]["episode"]] == about[0]["task"]
    for line in about:
        rows, things = frames.episode == line["episode"], frames.things[line["episode"]]
        named = f"{line['task'].split()[2]} {line['task'].split()[4]}"
        assert things == ((named, "bowl") if line["source"] == "twin" else ())
        assert frames.cells[rows].any() == (line["source"] == "twin") and not frames.where[rows, len(things) :].any()
    written = (tmp_path / "shard_0000.npz").stat().st_mtime_ns
    assert not generate(names, tmp_path, 2, seed=5_000_000)
    with pytest.raises(ValueError, match=r"holds shards of other settings \(seed 5000000 there, 6000000 now\); choose"):
        generate(names, tmp_path, 2, seed=6_000_000)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match="holds shards of other settings"):
        generate(names, tmp_path, 2, seed=5_000_000)
    assert (tmp_path / "shard_0000.npz").stat().st_mtime_ns == written
    assert capsys.readouterr().out.startswith("shard_0000.npz: ")


def test_the_command_refuses_an_unknown_source(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--source", "atari/Pong"])
    assert "no generated source 'atari/Pong'" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no generated source 'atari/Pong'"):
        play_source("atari/Pong", 1, 0)


def test_metaworlds_policy_opens_the_drawer_and_its_failures_fail():
    pytest.importorskip("metaworld", reason="pip install metaworld packaging")
    entries = list(play_metaworld("drawer-open-v3", 60))
    for kind in ("success", "dropped", "random"):
        episode = entries[first_seed_of(kind, "metaworld/drawer-open-v3")].open()
        check(episode, "metaworld/drawer-open-v3")
        assert episode.kind == kind and episode.success == (kind == "success")
    again = entries[first_seed_of("random", "metaworld/drawer-open-v3")].open()
    np.testing.assert_array_equal(again.progress, episode.progress)
    assert "drawer" in again.task


def test_without_metaworld_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "metaworld", None)
    monkeypatch.setitem(__import__("sys").modules, "metaworld.env_dict", None)
    with pytest.raises(ImportError, match="pip install metaworld packaging"):
        next(play_metaworld("push-v3", 1)).open()
