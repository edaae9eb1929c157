# SPDX-License-Identifier: Apache-2.0
"""What can be asked of tabletop, ManiSkill and Meta-World scenes, and the labels of the state for each text."""

import numpy as np
import pytest

from lrm_ros.sim.behaviour import behave
from lrm_ros.sim.instructions import UNKNOWN, around, own_label
from lrm_ros.sim.seen import HELD, SIDE
from lrm_ros.sim.tabletop.goals import Goal, asked
from lrm_ros.sim.tabletop.scenes import FAMILIES, draw_scene
from lrm_ros.sim.tabletop.world import TabletopWorld
from lrm_ros.training.reward.data.sources.maniskill import play_maniskill
from lrm_ros.training.reward.data.sources.metaworld import play_metaworld
from lrm_ros.training.reward.data.sources.rollouts import SHUFFLED, draw_kind
from lrm_ros.training.reward.data.sources.tabletop import play_tabletop
from lrm_ros.training.reward.data.sources.twin import play_twin


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_a_scene_name_what_is_there_or_have_no_goal(family):
    kinds = set()
    for seed in range(60):
        scene = draw_scene(family, np.random.default_rng(seed))
        found = asked(scene, np.random.default_rng(seed))
        assert found[0][0].wordings[0] == scene.instruction
        assert found[0][1] == Goal(family, scene.thing, scene.base)
        texts = [text for one, _ in found for text in one.wordings]
        assert len(set(texts)) == len(texts) and not any("{" in text or "  " in text for text in texts)
        for one, goal in found:
            kinds.add(one.kind)
            assert (goal is None) == (one.kind in ("colour", "absent", "absent_place", "nonsense")) or (
                one.kind == "swapped"
            )
            if goal is not None:
                assert goal.thing in scene.places and (not goal.base or goal.base in scene.places)
    assert {"own", "opposite", "thing", "colour", "absent", "absent_place", "nonsense"} <= kinds
    assert ("swapped" in kinds) == (family in ("stack", "box"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_state_makes_the_own_text_true_and_its_opposite_false_when_it_is_done(family):
    world, seen = TabletopWorld(family), 0
    for seed in range(4):
        world.reset(seed)
        kinds = [one.kind for one in world.instructions]
        opposite = kinds.index("opposite")
        first = world.labels()
        assert first[0][1] == 0.0 and first[opposite] == (1.0, 1.0)
        for _ in behave(world, "success", np.random.default_rng(seed)):
            pass
        if not world.done:
            continue
        seen += 1
        last = world.labels()
        assert last[0] == (1.0, 1.0) and last[opposite][1] == 0.0
        for kind, label in zip(kinds, last, strict=True):
            if kind in ("colour", "absent", "absent_place", "nonsense"):
                assert label == (0.0, 0.0)
            if kind in ("thing", "place", "swapped") and family in ("stack", "box"):
                assert label[1] == 0.0, "one thing lies in one place"
    assert seen > 0


def test_what_lies_where_another_text_wants_it_is_done_for_that_text():
    world = TabletopWorld("box")
    seed = next(n for n in range(50) if any(one.kind == "thing" for one, _ in asked_of("box", n)))
    world.reset(seed)
    number = [one.kind for one in world.instructions].index("thing")
    goal = world._asked[number][1]
    world.task_env.put(goal.thing, world._on_base(goal))
    assert world.labels()[number] == (1.0, 1.0)
    assert world.labels()[0][1] == 0.0


def test_what_lies_in_the_other_box_is_done_for_the_text_that_names_that_one():
    world = TabletopWorld("box")
    seed = next(n for n in range(50) if any(goal and goal.base == "other_box" for _, goal in asked_of("box", n)))
    world.reset(seed)
    (number,) = (k for k, (_, goal) in enumerate(world._asked) if goal is not None and goal.base == "other_box")
    instruction, goal = world._asked[number]
    other = f"{world.scene.paints['other_box']} box"
    assert instruction.kind == "place" and all(other in text for text in instruction.wordings)
    assert world.scene.paints["other_box"] != world.scene.paints["box"]
    world.task_env.put(goal.thing, world._on_base(goal))
    assert world.labels()[number] == (1.0, 1.0) and world.labels()[0][1] == 0.0
    parts = list(world.scene.places)
    assert world.where()[parts.index(goal.thing)] == parts.index("other_box") + 1
    for _ in range(20):
        world._send(world.arm.reset())
    assert world.labels()[number] == (1.0, 1.0), "it lies there"


def asked_of(family, seed):
    return asked(draw_scene(family, np.random.default_rng([seed, 2])), np.random.default_rng([seed, 5]))


def test_a_scene_with_one_task_is_asked_its_wordings_another_colour_and_what_cannot_be_done():
    rng = np.random.default_rng(0)
    found = around("push the red cube", ["push the red cube", "move the red cube"], rng, "red", ["red", "blue"])
    assert [one.kind for one in found] == ["own", "colour", "absent", "nonsense"]
    assert found[0].wordings == ("push the red cube", "move the red cube")
    assert found[1].wordings == ("push the blue cube", "move the blue cube")
    assert [one.kind for one in around("open the door", ["open the door"], rng)] == ["own", "absent", "nonsense"]
    assert own_label(0.5, False) == (0.5, 0.0) and own_label(1.0, True) == (1.0, 1.0)
    assert own_label(1.0, False)[1] is UNKNOWN


@pytest.mark.parametrize(
    ("play", "task", "library"),
    [(play_maniskill, "PushCube-v1", "mani_skill"), (play_metaworld, "drawer-open-v3", "metaworld")],
)
def test_episodes_of_every_simulator_carry_texts_and_labels(play, task, library):
    pytest.importorskip(library, reason="pip install metaworld packaging")
    source = f"{'metaworld' if library == 'metaworld' else 'maniskill'}/{task}"
    episode = next(play(task, 1, first_of("success", source))).open()
    assert episode.asked.instructions[0].wordings[0] == episode.task
    np.testing.assert_allclose(episode.asked.labels[:, 0, 0], episode.progress)
    assert (episode.asked.labels[:, 1:] == 0).all()
    assert episode.asked.labels[-1, 0, 1] == 1


def test_labels_of_a_reversed_episode_run_backwards():
    entries = play_tabletop("box", 1, first_of("reversed", "tabletop/box"))
    episode = next(entries).open()
    opposite = [one.kind for one in episode.asked.instructions].index("opposite")
    labels = episode.asked.labels
    assert labels[0, 0, 1] == 1 and labels[-1, 0, 1] == 0
    assert labels[0, opposite, 1] == 0 and labels[-1, opposite, 1] == 1


def first_of(kind, source):
    return next(seed for seed in range(1000) if draw_kind(source, seed) == kind)


def test_a_shuffled_scene_has_things_on_things_and_in_the_gripper_and_says_so():
    (entry,) = play_tabletop("stack", 1, 7_500_003, kind=SHUFFLED)
    episode = entry.open()
    names, where = episode.seen.things, episode.seen.where
    assert episode.kind == SHUFFLED and episode.seen.cells.shape == (episode.length, SIDE, SIDE)
    assert (where == HELD).any() and ((where > 0) & (where != HELD)).any() and (where == 0).all(1).any()
    own = names.index(episode.task.split(" on ")[0].split("the ")[-1].removesuffix(" on top of"))
    base = names.index(episode.task.rsplit("the ", 1)[-1])
    np.testing.assert_array_equal(episode.done, where[:, own] == base + 1)
    with pytest.raises(ValueError, match="'twin' has nothing to shuffle"):
        next(play_twin(1, source="twin", shuffled=True))
