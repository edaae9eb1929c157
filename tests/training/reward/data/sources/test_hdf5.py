# SPDX-License-Identifier: Apache-2.0
"""LIBERO, robomimic and RoboCasa v0.2: HDF5 files written here with h5py in their layout, nasty parts included."""

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from lerobot_sets import reasons  # type: ignore[import-not-found]
from numbered import number_in, numbered  # type: ignore[import-not-found]

from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.libero import read_libero
from lrm_ros.training.reward.data.sources.robocasa import read_robocasa
from lrm_ros.training.reward.data.sources.robomimic import read_robomimic, success_flags


def images(first: int, count: int) -> np.ndarray:
    return np.stack([numbered(first + k) for k in range(count)])


def last_one(length: int) -> np.ndarray:
    return np.eye(1, length, length - 1, dtype=np.uint8)[0]


def numbers(episode, indices=None) -> list[int]:
    return [number_in(frame) for frame in episode.read(range(episode.length) if indices is None else indices)]


# --- LIBERO ----------------------------------------------------------------------------------------------------------


def write_libero(
    path: Path, problem_info='{"language_instruction": "turn on the stove"}', demos=12, **attributes
) -> Path:
    """A file as LIBERO's create_dataset.py writes it; demo n starts at image 100 n and has 5 + n steps."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        arguments = {"type": 1, "env_name": "Libero_Kitchen", "env_kwargs": {"control_freq": 20}}
        about = {"env_name": "Libero_Kitchen", "macros_image_convention": "opengl", "num_demos": demos}
        about |= {"env_args": json.dumps(arguments), "bddl_file_name": "a.bddl"}
        if problem_info is not None:
            about["problem_info"] = problem_info
        for name, value in (about | attributes).items():
            data.attrs[name] = value
        for n in range(demos):
            demo, length = data.create_group(f"demo_{n}"), 5 + n
            upside_down = images(100 * n, length)[:, ::-1]
            demo.create_dataset("obs/agentview_rgb", data=upside_down)
            demo.create_dataset("obs/eye_in_hand_rgb", data=images(100 * n + 50, length)[:, ::-1])
            demo.create_dataset("obs/joint_states", data=np.zeros((length, 7)))
            demo.create_dataset("actions", data=np.zeros((length, 7)))
            demo.create_dataset("rewards", data=last_one(length))
            demo.create_dataset("dones", data=last_one(length))
            demo.attrs["num_samples"] = length
    return path


def test_libero_images_are_turned_the_right_way_up_and_episodes_are_in_order(tmp_path):
    write_libero(tmp_path / "libero_goal/turn_on_the_stove_demo.hdf5")
    write_libero(tmp_path / "libero_90/KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5", demos=1)
    entries = list(read_libero(tmp_path))
    assert [(entry.source, entry.episode_id) for entry in entries] == [
        ("libero_90", "KITCHEN_SCENE3_turn_on_the_stove_demo/demo_0"),
        *(("libero_goal", f"turn_on_the_stove_demo/demo_{n}") for n in range(12)),
    ]
    episode = entries[-1].open()
    assert (episode.task, episode.fps, episode.length) == ("turn on the stove", 20.0, 16)
    assert numbers(episode) == list(range(1100, 1116))
    assert numbers(episode, [0, 7, 15]) == [1100, 1107, 1115]
    assert next(episode.read([0])).flags["C_CONTIGUOUS"]
    # The last step is marked by construction; people held the success before it, so frames before have no label.
    assert (episode.success, episode.kind, episode.done, episode.progress) == (True, "demonstration", None, None)
    hand = list(read_libero(tmp_path / "libero_goal/turn_on_the_stove_demo.hdf5", "eye_in_hand_rgb"))[2].open()
    assert (hand.source, numbers(hand)) == ("libero_goal", list(range(250, 257)))


def test_libero_images_that_the_file_says_are_upright_stay_so(tmp_path):
    path = write_libero(tmp_path / "a_demo.hdf5", demos=1, macros_image_convention="opencv")
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/agentview_rgb"][:] = images(0, 5)
    assert numbers(next(read_libero(path)).open()) == list(range(5))


@pytest.mark.parametrize(
    ("name", "problem_info", "task"),
    [
        ("a_demo", '{"language_instruction": "\\"open the top drawer\\""}', "open the top drawer"),
        ("a_demo", '{"language_instruction": ["open", "the", "top", "drawer"]}', "open the top drawer"),
        ("KITCHEN_SCENE10_put_the_black_bowl_in_the_top_drawer_demo", None, "put the black bowl in the top drawer"),
        ("LIVING_ROOM_SCENE2_pick_up_the_milk_demo", '{"language_instruction": ""}', "pick up the milk"),
        ("push_the_plate_demo", "{}", "push the plate"),
    ],
)
def test_libero_tells_the_task_in_the_file_or_in_its_name(tmp_path, name, problem_info, task):
    path = write_libero(tmp_path / f"{name}.hdf5", problem_info, demos=1)
    assert next(read_libero(path)).open().task == task


def test_libero_episodes_that_are_broken_are_refused_one_by_one(tmp_path):
    path = write_libero(tmp_path / "g/a_demo.hdf5", demos=6)
    with h5py.File(path, "a") as file:
        data = file["data"]
        del data["demo_0/obs/agentview_rgb"]
        del data["demo_1/obs/agentview_rgb"]
        data["demo_1"].create_dataset("obs/agentview_rgb", data=np.zeros((0, 48, 64, 3), np.uint8))
        data["demo_2/obs/agentview_rgb"][:] = 0
        del data["demo_3/rewards"]
        data["demo_3"].create_dataset("rewards", data=np.ones(3))
        data["demo_4/rewards"][:] = 0
        del data["demo_5/obs/agentview_rgb"]
        data["demo_5"].create_dataset("obs/agentview_rgb", data=np.zeros((10, 48, 64, 3), np.float32))
    entries = list(read_libero(path))
    assert reasons(entries) == {
        "a_demo/demo_0": "no camera 'agentview_rgb', only: eye_in_hand_rgb",
        "a_demo/demo_1": "no frames",
        "a_demo/demo_2": "camera 'agentview_rgb' is black",
        "a_demo/demo_3": "rewards that are not one finite number a frame",
        "a_demo/demo_5": "camera 'agentview_rgb' gives float32 (48, 64, 3), not colour images",
    }
    failed = entries[4].open()
    assert (failed.success, failed.kind) == (False, "failure")
    assert set(reasons(read_libero(write_libero(tmp_path / "g/b_demo.hdf5", "not JSON", 1))).values()) == {
        "attribute 'problem_info' is not JSON"
    }


def test_files_that_cannot_be_read_are_one_bad_entry_each(tmp_path):
    good = write_libero(tmp_path / "good_demo.hdf5", demos=1)
    data = write_libero(tmp_path / "cut_demo.hdf5", demos=2).read_bytes()
    (tmp_path / "cut_demo.hdf5").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty_demo.hdf5").write_bytes(b"")
    with h5py.File(tmp_path / "nothing_demo.hdf5", "w"):
        pass
    entries = list(read_libero(tmp_path))
    assert reasons(entries) == {
        "cut_demo": "unreadable HDF5 file: OSError",
        "empty_demo": "unreadable HDF5 file: OSError",
        "nothing_demo": "a file without episodes",
    }
    good.unlink()  # between listing and opening
    assert reasons(entries)["good_demo/demo_0"] == "unreadable HDF5 file: FileNotFoundError"
    with pytest.raises(FileNotFoundError, match="holds no HDF5 files"):
        read_libero(tmp_path / "elsewhere")


def test_a_file_is_open_only_while_frames_are_read(tmp_path):
    path = write_libero(tmp_path / "a_demo.hdf5", demos=2)

    def is_open() -> bool:
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return any(os.path.realpath(link) == str(path) for link in links)

    episodes = [entry.open() for entry in read_libero(path)]
    assert not is_open()
    frames = episodes[0].frames()
    next(frames)
    assert is_open()
    frames.close()
    assert not is_open()
    assert numbers(episodes[1]) == list(range(100, 106)) and not is_open()


def test_damaged_images_are_refused_while_they_are_read(tmp_path):
    path = tmp_path / "a_demo.hdf5"
    write_libero(path, demos=1)
    noise = np.random.default_rng(0).integers(1, 255, (5, 48, 64, 3), dtype=np.uint8)
    with h5py.File(path, "a") as file:
        group = file["data/demo_0/obs"]
        del group["agentview_rgb"]
        group.create_dataset("agentview_rgb", data=noise, compression="gzip", chunks=(1, 48, 64, 3))
        where = group["agentview_rgb"].id.get_chunk_info_by_coord((4, 0, 0, 0)).byte_offset
    with path.open("r+b") as stream:
        stream.seek(where)
        stream.write(bytes(200))
    episode = next(read_libero(path)).open()
    np.testing.assert_array_equal(next(episode.read([3])), noise[3, ::-1])
    with pytest.raises(BadEpisode, match="unreadable HDF5 file"):
        list(episode.read([3, 4]))


# --- robomimic -------------------------------------------------------------------------------------------------------

SPARSE = [0, 0, 0, 1, 1, 1]


def write_robomimic(path: Path, rewards, dones=None, next_obs: bool = False, control_freq=20) -> Path:
    """A file as dataset_states_to_obs.py writes it; a list of rewards and of dones a demo, image 100 n first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        arguments = {"camera_names": ["agentview"], "control_freq": control_freq}
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": arguments}, indent=4)
        data.attrs["total"] = sum(map(len, rewards))
        for n, row in enumerate(rewards):
            demo, length = data.create_group(f"demo_{n}"), len(row)
            demo.create_dataset("obs/agentview_image", data=images(100 * n, length), compression="gzip")
            demo.create_dataset("obs/robot0_eye_in_hand_image", data=images(100 * n + 50, length))
            demo.create_dataset("obs/object", data=np.zeros((length, 10)))
            if next_obs:
                demo.create_dataset("next_obs/agentview_image", data=images(100 * n + 1, length))
            demo.create_dataset("actions", data=np.zeros((length, 7)))
            demo.create_dataset("rewards", data=np.asarray(row, float))
            demo.create_dataset("dones", data=np.asarray(dones[n] if dones else last_one(length)))
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = "<mujoco/>"
        for key, demos in {"train": [0, 2], "valid": [1]}.items():
            file.create_dataset(f"mask/{key}", data=np.array([f"demo_{n}" for n in demos], dtype="S"))
    return path


def test_robomimic_rewards_tell_of_the_state_after_the_action(tmp_path):
    path = write_robomimic(tmp_path / "lift/ph/image_v15.hdf5", [SPARSE, [0] * 6, [0, 0, 0, 0, 0, 1]])
    entries = list(read_robomimic(tmp_path / "lift", "lift the cube"))
    assert [entry.episode_id for entry in entries] == [f"lift/ph/image_v15/demo_{n}" for n in range(3)]
    assert [entry.episode_id for entry in read_robomimic(path, "lift the cube")] == [e.episode_id for e in entries]
    good, failed, marked = (entry.open() for entry in entries)
    assert (good.source, good.task, good.fps, good.length) == ("robomimic", "lift the cube", 20.0, 6)
    assert numbers(good) == [0, 1, 2, 3, 4, 5]  # upright as they are
    assert (good.success, good.kind, good.done.tolist()) == (True, "demonstration", [False] * 4 + [True] * 2)
    assert (failed.success, failed.kind, failed.done.any()) == (False, "failure", np.False_)
    assert (marked.success, marked.done) == (True, None)


def test_robomimic_reads_the_frame_after_the_last_action_where_the_file_has_it(tmp_path):
    path = write_robomimic(tmp_path / "image.hdf5", [SPARSE], next_obs=True)
    episode = next(read_robomimic(path, "lift the cube")).open()
    assert episode.length == 7 and numbers(episode) == [0, 1, 2, 3, 4, 5, 6]
    assert numbers(episode, [2, 6]) == [2, 6]
    assert episode.done.tolist() == [False] * 4 + [True] * 3
    hand = next(read_robomimic(path, "lift the cube", "robot0_eye_in_hand")).open()
    assert numbers(hand) == [50, 51, 52, 53, 54, 55]


def test_robomimic_filter_keys_choose_episodes(tmp_path):
    path = write_robomimic(tmp_path / "image.hdf5", [SPARSE] * 3)
    chosen = [entry.episode_id[-6:] for entry in read_robomimic(path, "lift the cube", mask="train")]
    assert chosen == ["demo_0", "demo_2"]
    with pytest.raises(ValueError, match="no filter key 'test', only: train, valid"):
        list(read_robomimic(path, "lift the cube", mask="test"))
    with h5py.File(path, "a") as file:
        del file["data/demo_2"]
    (reason,) = reasons(read_robomimic(path, "lift the cube", mask="train")).values()
    assert reason == "an episode that is listed but not there"


def test_robomimic_needs_a_task_and_a_rate(tmp_path):
    path = write_robomimic(tmp_path / "image.hdf5", [SPARSE], control_freq=None)
    with pytest.raises(ValueError, match="give its language instruction"):
        read_robomimic(path, " ")
    assert list(reasons(read_robomimic(path, "lift")).values()) == ["no control rate in 'env_args'; give fps"]
    assert next(read_robomimic(path, "lift", fps=15)).open().fps == 15


def test_shaped_rewards_tell_success_only_through_done_signals(tmp_path):
    shaped = [0.1, 0.2, 0.9, 1.0, 1.0, 0.7]
    assert success_flags(np.array(shaped), np.array([0, 0, 0, 1, 1, 1])).tolist() == [False] * 3 + [True] * 3
    assert success_flags(np.array(shaped), np.array([0, 0, 0, 1, 0, 1])).tolist() == [False] * 3 + [True, False, False]
    assert success_flags(None, last_one(6)) is None and success_flags(None, None) is None
    path = write_robomimic(tmp_path / "dense.hdf5", [shaped], [last_one(6)])
    (reason,) = reasons(read_robomimic(path, "lift")).values()
    assert reason == "shaped rewards, and no done signal that tells success"


# --- RoboCasa v0.2 ---------------------------------------------------------------------------------------------------


def write_robocasa(path: Path, langs, rewards) -> Path:
    """A file as RoboCasa v0.2 has them: robomimic's form, the instruction in each episode's ep_meta."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "PnPCounterToCab", "env_kwargs": {"control_freq": 20}})
        for n, (lang, row) in enumerate(zip(langs, rewards, strict=True), 1):
            demo, length = data.create_group(f"demo_{n}"), len(row)
            for k, camera in enumerate(("agentview_left", "agentview_right", "eye_in_hand")):
                stack = images(200 * n + 50 * k, length)
                demo.create_dataset(f"obs/robot0_{camera}_image", data=stack, compression="gzip")
            demo.create_dataset("rewards", data=np.asarray(row, float))
            demo.create_dataset("dones", data=np.asarray(row))
            demo.create_dataset("actions", data=np.zeros((length, 12)))
            if lang is not None:
                demo.attrs["ep_meta"] = json.dumps({"layout_id": 1, "lang": lang}, indent=4)
        file.create_dataset("mask/1_demos", data=np.array(["demo_1"], dtype="S"))
    return path


def test_robocasa_episodes_have_their_own_task_and_the_success_of_each_frame(tmp_path):
    langs = ["pick the jam from the counter and place it in the cabinet", "close the door", None, ""]
    rewards = [SPARSE, [0] * 6, SPARSE, SPARSE]
    folder = tmp_path / "v0.1/single_stage/kitchen_pnp/PnPCounterToCab/2024-04-24"
    path = write_robocasa(folder / "demo_gentex_im128.hdf5", langs, rewards)
    entries = list(read_robocasa(tmp_path))
    assert entries[0].episode_id == "kitchen_pnp/PnPCounterToCab/2024-04-24/demo_gentex_im128/demo_1"
    good, failed = entries[0].open(), entries[1].open()
    assert (good.source, good.task, good.fps) == ("robocasa", langs[0], 20.0)
    assert numbers(good) == list(range(200, 206))
    assert good.success is True and good.done.tolist() == [bool(value) for value in SPARSE]  # not shifted
    assert (failed.success, failed.kind, failed.task) == (False, "failure", "close the door")
    assert set(reasons(entries[2:]).values()) == {"no language instruction"}
    assert len(list(read_robocasa(path, mask="1_demos"))) == 1
    hand = next(read_robocasa(path, "robot0_eye_in_hand")).open()
    assert numbers(hand, [1]) == [301]


def test_robocasa_episodes_that_are_black_but_for_a_speck_are_refused(tmp_path):
    path = write_robocasa(tmp_path / "demo.hdf5", ["close the door"], [SPARSE])
    with h5py.File(path, "a") as file:
        dark = np.zeros((6, 48, 64, 3), np.uint8)
        dark[:, 20, 20] = (255, 255, 0)
        file["data/demo_1/obs/robot0_agentview_left_image"][:] = dark
    assert list(reasons(read_robocasa(path)).values()) == ["camera 'robot0_agentview_left_image' is black"]
