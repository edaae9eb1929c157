# SPDX-License-Identifier: Apache-2.0
"""Buttons, drawers, levers and handles at the table: what is asked of a scene, what the Panda does, what labels say."""

import contextlib

import numpy as np
import pytest

from lrm_ros.sim.behaviour import behave
from lrm_ros.sim.tabletop.fixture_scenes import FAMILIES, asked_of_fixtures, draw_fixture_scene, kind_of
from lrm_ros.sim.tabletop.fixture_world import FixtureWorld
from lrm_ros.sim.tabletop.fixtures import KINDS, fraction, knob_at
from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.rollouts import SHUFFLED, draw_kind
from lrm_ros.training.reward.data.sources.tabletop import play_fixtures

NOT_THERE = ("colour", "absent", "nonsense")


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_of_a_scene_name_what_is_there_or_have_no_aim(family):
    kinds = set()
    for seed in range(60):
        scene = draw_fixture_scene(family, np.random.default_rng(seed))
        found = asked_of_fixtures(scene, np.random.default_rng(seed))
        assert found[0][0].wordings[0] == scene.instruction and found[0][1] == scene.aim
        texts = [text for one, _ in found for text in one.wordings]
        assert len(set(texts)) == len(texts) and not any("{" in text for text in texts)
        assert len(set(scene.paints.values())) == len(scene.spots)
        for one, aim in found:
            kinds.add(one.kind)
            assert (aim is None) == (one.kind in NOT_THERE)
            assert aim is None or aim.part in scene.spots
        apart = [(a, b) for a in scene.spots for b in scene.spots if a < b]
        for a, b in apart:
            room = KINDS[kind_of(a)].radius + KINDS[kind_of(b)].radius
            assert np.linalg.norm(scene.spots[a] - scene.spots[b]) > room
    assert {"own", "thing", "both", *NOT_THERE} <= kinds and ("opposite" in kinds) == (family != "button")
    with pytest.raises(ValueError, match="no family 'door' of fixtures; there are: button, drawer, lever, handle"):
        draw_fixture_scene("door", np.random.default_rng(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_state_makes_the_own_text_true_and_its_opposite_false_when_it_is_done(family):
    world, done = FixtureWorld(family), 0
    for seed in range(4):
        world.reset(seed)
        kinds = [one.kind for one in world.instructions]
        first = world.labels()
        assert first[0] == (0.0, 0.0) and world.progress == 0.0
        opposite = kinds.index("opposite") if "opposite" in kinds else None
        assert opposite is None or first[opposite][1] == 1.0
        others = {part: world.fraction(part) for part in world.scene.spots if part != world.scene.aim.part}
        course = [world.progress for _ in behave(world, "success", np.random.default_rng(seed))]
        assert world.done == (course[-1] == 1.0)
        if not world.done:
            continue
        done += 1
        last = world.labels()
        assert last[0] == (1.0, 1.0) and max(course[:5]) < 0.3
        assert opposite is None or last[opposite][1] == 0.0
        assert all(label == (0.0, 0.0) for kind, label in zip(kinds, last, strict=True) if kind in NOT_THERE)
        for part, share in others.items():
            assert world.fraction(part) == pytest.approx(share, abs=0.02), "the others stay as they were"
    assert done >= 3


def test_a_knob_is_where_the_simulator_has_it():
    for family in FAMILIES:
        world = FixtureWorld(family)
        world.reset(1)
        part, fixture = world.scene.aim.part, KINDS[family]
        for share in (0.1, 0.9):
            world.move(part, share)
            joint = fixture.low + share * (fixture.high - fixture.low)
            assert world.fraction(part) == pytest.approx(share, abs=1e-4) == fraction(family, joint)
            link = world.task_env.fixtures[part]._objs[0].links[1].entity.pose.to_transformation_matrix()
            np.testing.assert_allclose((link @ [*fixture.knob, 1.0])[:3], world.knob(part), atol=1e-4)
            np.testing.assert_allclose(world.knob(part, joint), world.knob(part), atol=1e-4)
    assert knob_at("handle", 0.5)[2] > knob_at("handle", -0.5)[2], "up is the upper end"
    assert knob_at("lever", 0.5)[1] > knob_at("lever", -0.5)[1], "left is the upper end"


@pytest.mark.parametrize("kind", ["dropped", "missed", "reversed"])
def test_failures_of_a_drawer_fail(kind):
    numbers = [seed for seed in range(200) if draw_kind("fixtures/drawer", seed) == kind]
    for number in numbers[:6]:
        with contextlib.suppress(BadEpisode):
            episode = next(play_fixtures("drawer", 1, number)).open()
            break
    assert episode.kind == kind and not episode.success and episode.asked.labels.shape[0] == episode.length
    np.testing.assert_allclose(episode.asked.labels[:, 0, 0], episode.progress)
    if kind == "dropped":
        assert 0.4 < episode.progress.max() < 1.0
    if kind == "reversed":
        assert episode.done[0] and episode.progress[-1] == 0.0


def test_a_shuffled_scene_has_joints_at_both_ends_and_says_so():
    (entry,) = play_fixtures("drawer", 1, 7_800_001, kind=SHUFFLED)
    episode = entry.open()
    own, opposite = (
        next(k for k, one in enumerate(episode.asked.instructions) if one.kind == kind) for kind in ("own", "opposite")
    )
    done = episode.asked.labels[..., 1]
    assert episode.kind == SHUFFLED and episode.length == 8
    assert {0.0, 1.0} == set(done[:, own]) == set(done[:, opposite]) and not (done[:, own] * done[:, opposite]).any()
    assert episode.seen.cells.any() and not episode.seen.where.any()
    names = [name.split()[1] for name in episode.seen.things]
    assert names[0] == "drawer" and set(names) <= set(FAMILIES)
    with pytest.raises(ValueError, match="no family 'door' of fixtures"):
        next(play_fixtures("door", 1))
