# SPDX-License-Identifier: Apache-2.0
"""The twin with several toys and two vessels: what the instructions say, and the labels of the state for each."""

import math

import numpy as np
import pytest
import sapien

from lrm_ros.sim.instructions import KINDS
from lrm_ros.sim.seen import SIDE, cells_of
from lrm_ros.sim.twin.expert import KINDS as BEHAVIOURS
from lrm_ros.sim.twin.expert import MISTAKES, expert_targets
from lrm_ros.sim.twin.generate import record_episode, record_shuffled
from lrm_ros.sim.twin.instructions import VESSELS, Goal, asked
from lrm_ros.sim.twin.world import World

TOYS = [("red", "pig"), ("blue", "pig"), ("red", "giraffe")]


@pytest.fixture(scope="module")
def world():
    built = World("SortToys-v1")
    yield built
    built.close()


def labels_by_text(world):
    found = zip(world.task_env.instructions, world.task_env.labels(), strict=True)
    return {text: label for one, label in found for text in one.wordings}


def test_every_kind_of_text_is_asked_and_only_what_is_there_has_a_goal():
    found = asked(TOYS, VESSELS, Goal(0, "box"), np.random.default_rng(0))
    assert found[0][0].kind == "own" and found[0][1] == Goal(0, "box")
    assert found[0][0].wordings[0] == "put the red toy pig in the box"
    assert {one.kind for one, _ in found} == set(KINDS)
    goals = {text: goal for one, goal in found for text in one.wordings}
    assert len(goals) == sum(len(one.wordings) for one, _ in found), "no text twice"
    assert goals["put the blue toy pig in the box"] == Goal(1, "box")
    assert goals["put the red toy giraffe in the bowl"] == Goal(2, "bowl")
    assert goals["take the red toy pig out of the box"] == Goal(0, "box", out=True)
    assert goals["put the box in the red toy pig"] is None
    there = {f"{colour} toy {animal}" for colour, animal in TOYS}
    for one, goal in found:
        if one.kind in ("colour", "absent") and "toy" in one.wordings[0]:
            assert goal is None and not any(name in one.wordings[0] for name in there), one


def test_the_same_seed_asks_the_same_and_scenes_have_room(world):
    scenes = set()
    for seed in range(12):
        world.reset(seed)
        env = world.task_env
        first = (world.instruction, env.instructions)
        world.reset(seed)
        assert (world.instruction, world.task_env.instructions) == first
        assert first[1][0].wordings[0] == world.instruction
        places = [np.asarray(toy._objs[0].pose.p[:2]) for _, _, toy in env._toys_here()]
        assert 2 <= len(places) <= 3
        assert min(math.dist(a, b) for a in places for b in places if a is not b) > 0.05
        assert len({(colour, animal) for colour, animal, _ in env._toys_here()}) == len(places)
        assert not world.succeeded and world.task_env.progress < 0.4
        scenes.add(world.instruction.rsplit(" ", 1)[1])
    assert scenes == set(VESSELS)


def test_the_expert_does_what_is_asked_and_each_text_has_the_label_of_the_state(world):
    seed = next(number for number in range(100) if played(world, number))
    assert world.succeeded, seed
    labels = labels_by_text(world)
    own = world.instruction
    assert labels[own] == (1.0, 1.0)
    out = own.replace("put", "take").replace(" in the ", " out of the ")
    assert labels[out][1] == 0.0 and labels[out][0] < 0.9
    for one, (progress, done) in zip(world.task_env.instructions, world.task_env.labels(), strict=True):
        if one.kind in ("colour", "absent", "absent_place", "swapped", "nonsense"):
            assert (progress, done) == (0.0, 0.0), one
        if one.kind == "place":
            assert done == 0.0, "it cannot be in both"


def played(world, seed):
    """Play the expert; whether nothing lay in a vessel at the start and it succeeded."""
    world.reset(seed)
    if any(
        done == 1.0 for text, (_, done) in labels_by_text(world).items() if not text.startswith(("take", "re", "g"))
    ):
        return False
    for target in expert_targets(world):
        world.step(target)
    return world.succeeded


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_does_another_text_than_the_own_one(world, kind):
    rows = (record_episode(world, kind, seed, 2) for seed in range(50))
    row = next(one for one in rows if one is not None and np.nanmax(one["labels"][-1, 1:, 1]) == 1 and placed(world))
    assert row["labels"].shape == (len(row["frames"]), len(world.task_env.instructions), 2)
    assert row["success"][-1] == 0 and row["labels"][-1, 0, 1] == 0
    done = {
        one.kind for one, label in zip(world.task_env.instructions, row["labels"][-1], strict=True) if label[1] == 1
    }
    assert ("place" if kind == "wrong_place" else "thing") in done


def placed(world):
    """Whether a toy lies in a vessel that did not at the start: the one that the arm went for."""
    env = world.task_env
    return env._placed(env.toy, env.bowl)


def test_shuffled_pictures_show_other_arrangements_of_the_same_scene_and_where_everything_is(world):
    row = record_shuffled(world, 3, pictures=6)
    again = record_shuffled(world, 3, pictures=6)
    np.testing.assert_array_equal(row["where"], again["where"])
    texts, names = world.task_env.instructions, [name for name, _, _ in world.task_env.things()]
    assert row["frames"].shape == (6, 96, 96, 3) and row["cells"].shape == (6, SIDE, SIDE)
    assert len({tuple(where) for where in row["where"].tolist()}) > 2, "not always in the same vessels"
    into = {text: k for k, one in enumerate(texts) for text in one.wordings}
    for place, thing in enumerate(names[: -len(VESSELS)]):
        colour, animal = thing.split()
        for vessel in VESSELS:
            done = row["labels"][:, into[f"put the {colour} toy {animal} in the {vessel}"], 1]
            inside = row["where"][:, place] == names.index(vessel) + 1
            np.testing.assert_array_equal(done[np.isfinite(done)] == 1, inside[np.isfinite(done)])
    assert (row["where"][:, -len(VESSELS) :] == 0).all()
    for vessel in VESSELS:
        y = world.task_env.middles()[names.index(vessel)][1]  # grows to the right of the picture
        columns = np.argwhere(row["cells"] == names.index(vessel) + 1)[:, 2]
        assert (np.median(columns) > SIDE / 2) == (y > 0)


def test_what_can_be_moved_counts_more_in_its_place():
    segmentation = np.zeros((96, 96), np.int16)
    segmentation[:8, :8] = 7
    segmentation[2:6, 2:6] = 9
    segmentation[8:10, :8] = 7
    segmentation[16:18, :8] = 9
    cells = cells_of(segmentation, [9, 7], [True, False])
    assert cells[0, 0] == 1 and cells[1, 0] == 2 and cells[2, 0] == 1 and (cells > 0).sum() == 3


def test_an_unknown_mistake_is_refused_and_behaviours_of_the_demo_have_none(world):
    with pytest.raises(ValueError, match="mistake 'late' is not one of wrong_toy, wrong_place"):
        world.task_env.mistake("late", np.random.default_rng(0))
    assert not set(MISTAKES) & set(BEHAVIOURS)


def test_the_demos_scene_asks_about_its_toy_and_bowl():
    world = World()
    row = next(one for one in (record_episode(world, "success", seed, 2) for seed in range(9)) if one["success"][-1])
    texts = {one.kind for one in world.task_env.instructions}
    assert texts == {"own", "colour", "absent", "absent_place", "swapped", "opposite", "nonsense"}
    np.testing.assert_allclose(row["labels"][:, 0, 0], row["progress"], atol=1e-3)
    opposite = [one.kind for one in world.task_env.instructions].index("opposite")
    assert row["labels"][0, opposite, 1] == 1 and row["labels"][-1, opposite, 1] == 0
    world.close()


def test_animals_have_marks_here_that_the_demos_toys_have_not_and_are_as_hard_to_grasp():
    plain, marked = World(), World("SortToys-v1")
    for name, more in {"pig": 3, "giraffe": 11, "elephant": 4}.items():
        toys = [world.task_env.toys[name]._objs[0] for world in (plain, marked)]
        seen = [len(toy.find_component_by_type(sapien.render.RenderBodyComponent).render_shapes) for toy in toys]
        bodies = [toy.find_component_by_type(sapien.physx.PhysxRigidDynamicComponent) for toy in toys]
        assert seen[1] - seen[0] == more
        assert bodies[0].mass == bodies[1].mass and len({len(body.collision_shapes) for body in bodies}) == 1
