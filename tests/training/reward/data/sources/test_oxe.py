# SPDX-License-Identifier: Apache-2.0
"""Open X-Embodiment data sets written by tensorflow-datasets, read back without TensorFlow."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.oxe import instruction, read_oxe, success_in, text_of
from lrm_ros.training.reward.data.sources.oxe_tables import BGR, LAYOUTS

NYU_ROT = "nyu_rot_dataset_converted_externally_to_rlds"


def picture(step, view=0, size=32):
    image = np.zeros((size, size, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 200 - 3 * step, 10 * view, 40
    image[: step + 1, :, 2] = 250
    return image


def write(root, name, episodes, observation, step=None, split="train", file_format=None):
    """Write episodes (lists of steps) as one RLDS data set; returns its folder."""
    pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")
    tfds.disable_progress_bar()
    features = tfds.features
    flags = {
        "is_first": np.bool_,
        "is_last": np.bool_,
        "reward": np.float32,
        "action": features.Tensor(shape=(7,), dtype=np.float32),
    }
    steps = features.Dataset({"observation": features.FeaturesDict(observation), **flags, **(step or {})})
    info = features.FeaturesDict(
        {"steps": steps, "episode_metadata": features.FeaturesDict({"file_path": features.Text()})}
    )
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name,
        "1.0.0",
        info,
        {split: [(index, episode) for index, episode in enumerate(episodes)]},
        data_dir=root,
        disable_shuffling=True,
        file_format=file_format,
    )
    return builder.data_path


def episode(steps, path="/raw/x.npy"):
    last = len(steps) - 1
    flags = [
        {"is_first": i == 0, "is_last": i == last, "reward": 0.0, "action": np.zeros(7, np.float32)}
        for i in range(last + 1)
    ]
    return {"steps": [{**a, **b} for a, b in zip(flags, steps, strict=True)], "episode_metadata": {"file_path": path}}


@pytest.fixture
def feature():
    return pytest.importorskip("tensorflow_datasets").features


def image_of(feature, size=32, encoding="png"):
    return feature.Image(shape=(size, size, 3), dtype=np.uint8, encoding_format=encoding)


def read_all(folder, **arguments):
    return [entry.open() for entry in read_oxe(folder, **arguments)]


def test_frames_text_and_rate_come_back(tmp_path, feature):
    steps = [
        {"observation": {"image": picture(k), "natural_language_instruction": "open the drawer"}} for k in range(7)
    ]
    observation = {"image": image_of(feature), "natural_language_instruction": feature.Text()}
    folder = write(tmp_path, "fractal20220817_data", [episode(steps), episode(steps[:3])], observation)
    first, second = read_all(folder)
    assert [first.length, second.length] == [7, 3]
    assert [first.episode_id, second.episode_id] == ["train-0000000", "train-0000001"]
    assert (first.source, first.task, first.fps) == ("fractal20220817_data", "open the drawer", 3)
    assert (first.success, first.kind, first.progress, first.done) == (None, "demonstration", None, None)
    for index, frame in zip((0, 2, 6), first.read((0, 2, 6)), strict=True):
        np.testing.assert_array_equal(frame, picture(index))
    assert len(list(second.frames())) == 3


def test_tensorflow_reads_the_same_pictures(tmp_path, feature):
    tfds = pytest.importorskip("tensorflow_datasets")
    steps = [{"observation": {"image": picture(k)}, "language_instruction": "lift"} for k in range(4)]
    observation, step = {"image": image_of(feature, encoding="jpeg")}, {"language_instruction": feature.Text()}
    folder = write(tmp_path, "toto", [episode(steps)], observation, step)
    (mine,) = read_all(folder)
    (theirs,) = tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset(split="train"))
    for frame, other in zip(mine.frames(), theirs["steps"], strict=True):
        assert np.abs(frame.astype(int) - other["observation"]["image"]).max() <= 4  # two JPEG decoders
    assert mine.task == "lift"


def test_language_table_text_is_a_padded_array(tmp_path, feature):
    text = np.zeros(512, np.int32)
    text[:13] = list(b"push the star")
    steps = [{"observation": {"rgb": picture(k), "instruction": text}} for k in range(3)]
    observation = {"rgb": image_of(feature), "instruction": feature.Tensor(shape=(512,), dtype=np.int32)}
    (read,) = read_all(write(tmp_path, "language_table", [episode(steps)], observation))
    assert read.task == "push the star"


def test_nyu_rot_images_are_turned_from_bgr_into_rgb(tmp_path, feature):
    steps = [
        {"observation": {"image": picture(k)[..., ::-1]}, "language_instruction": "hang the mug"} for k in range(3)
    ]
    step = {"language_instruction": feature.Text()}
    folder = write(tmp_path, NYU_ROT, [episode(steps)], {"image": image_of(feature)}, step)
    (read,) = read_all(folder)
    for index, frame in enumerate(read.frames()):
        np.testing.assert_array_equal(frame, picture(index))


def test_droid_tells_success_in_the_path_and_its_text_in_the_second_key(tmp_path, feature):
    keys = ("exterior_image_1_left", "exterior_image_2_left", "wrist_image_left")
    texts = ("language_instruction", "language_instruction_2", "language_instruction_3")
    seven = feature.Tensor(shape=(7,), dtype=np.float64)
    steps = [
        {
            "observation": {key: picture(k, view) for view, key in enumerate(keys)} | {"joint_position": np.ones(7)},
            "action_dict": {"joint_velocity": np.ones(7)},
            texts[0]: "",
            texts[1]: "wipe",
            texts[2]: "rub",
        }
        for k in range(3)
    ]
    paths = [
        f"gs://x/r2d2/r2d2-data-full/AUTOLab/{word}/2023-07-07/trajectory.h5"
        for word in ("success", "failure", "other")
    ]
    folder = write(
        tmp_path,
        "droid",
        [episode(steps, path) for path in paths],
        {key: image_of(feature, encoding="jpeg") for key in keys} | {"joint_position": seven},
        {key: feature.Text() for key in texts} | {"action_dict": feature.FeaturesDict({"joint_velocity": seven})},
    )
    episodes = read_all(folder)
    assert [(e.success, e.kind, e.task) for e in episodes] == [
        (True, "demonstration", "wipe"),
        (False, "failure", "wipe"),
        (None, "demonstration", "wipe"),
    ]
    assert next(iter(episodes[0].frames()))[..., 1].mean() < 4
    wrist = read_all(folder, camera="wrist_image_left")
    assert next(iter(wrist[0].frames()))[..., 1].mean() > 16
    assert wrist[0].episode_id == "train-0000000@wrist_image_left"


def test_a_camera_of_plain_arrays_is_read_and_a_depth_camera_refused(tmp_path, feature):
    depth = np.full((32, 32, 1), 700, np.uint16)
    steps = [{"observation": {"image": picture(k), "depth": depth}, "language_instruction": "go"} for k in range(3)]
    observation = {
        "image": feature.Tensor(shape=(32, 32, 3), dtype=np.uint8),
        "depth": feature.Image(shape=(32, 32, 1), dtype=np.uint16, encoding_format="png"),
    }
    folder = write(tmp_path, "cmu_stretch", [episode(steps)], observation, {"language_instruction": feature.Text()})
    for index, frame in enumerate(read_all(folder)[0].frames()):
        np.testing.assert_array_equal(frame, picture(index))
    with pytest.raises(ValueError, match=r"no camera \('depth',\) among its colour cameras \['image'\]"):
        read_oxe(folder, camera="depth")


def test_bad_episodes_say_why_and_the_others_are_read(tmp_path, feature):
    def steps(text="go", black=False):
        images = [picture(k) * (0 if black else 1) for k in range(3)]
        return [{"observation": {"image": image}, "language_instruction": text} for image in images]

    late = steps()
    late[0]["observation"]["image"] = np.zeros((32, 32, 3), np.uint8)
    mixed = steps()
    mixed[1]["observation"]["image"] = picture(1, size=16)
    episodes = [steps(), steps(" "), steps(black=True), [], late, mixed]
    folder = write(
        tmp_path,
        "kuka",
        [episode(e) for e in episodes],
        {"image": feature.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="png")},
        {"language_instruction": feature.Text()},
    )
    reasons = []
    for entry in read_oxe(folder):
        try:
            list(entry.open().frames())
            reasons.append("")
        except BadEpisode as error:
            reasons.append(str(error))
    assert reasons == ["", "no language instruction", "camera 'image' is black", "no frames", "", "mixed image sizes"]


def small_set(tmp_path, feature, name="viola", split="train", file_format=None):
    steps = [{"observation": {"agentview_rgb": picture(k)}, "language_instruction": "go"} for k in range(3)]
    step = {"language_instruction": feature.Text()}
    observation = {"agentview_rgb": image_of(feature)}
    return write(
        tmp_path, name, [episode(steps) for _ in range(3)], observation, step, split=split, file_format=file_format
    )


def test_a_cut_or_missing_or_damaged_file_costs_only_its_episodes(tmp_path, feature):
    folder = small_set(tmp_path, feature)
    (file,) = folder.glob("*.tfrecord*")
    whole = file.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]

    def outcome():
        said = []
        for entry in read_oxe(folder):
            try:
                said.append(entry.open().length)
            except BadEpisode as error:
                said.append(str(error))
        return said

    assert outcome() == [3, 3, 3]
    file.write_bytes(whole[:-5])
    assert outcome() == [3, 3, "its file is missing or cut short"]
    damaged = bytearray(whole)
    damaged[12 + size // 2] ^= 1
    file.write_bytes(damaged)
    assert outcome() == ["damaged record", 3, 3]
    file.unlink()
    assert outcome() == ["its file is missing or cut short"] * 3


def test_entries_can_be_opened_in_any_order_and_are_the_same_in_every_run(tmp_path, feature):
    folder = small_set(tmp_path, feature, split="val")
    entries = list(read_oxe(folder, split="val"))
    assert [e.episode_id for e in entries] == [e.episode_id for e in read_oxe(folder, split="val")]
    assert [entries[i].open().episode_id for i in (2, 0)] == ["val-0000002", "val-0000000"]


def test_wrong_calls_are_refused_with_the_cure(tmp_path, feature):
    folder = small_set(tmp_path, feature, name="own_robot")
    with pytest.raises(ValueError, match=r"agentview_rgb.*camera="):
        read_oxe(folder)
    with pytest.raises(ValueError, match="fps="):
        read_oxe(folder, camera="agentview_rgb")
    assert read_all(folder, camera="agentview_rgb", fps=7)[0].fps == 7
    with pytest.raises(ValueError, match="no split 'test'"):
        read_oxe(folder, split="test")
    with pytest.raises(FileNotFoundError, match="ROOT/NAME/VERSION"):
        read_oxe(folder.parent)


def test_tensorflow_is_not_needed_to_read(tmp_path, feature):
    folder = small_set(tmp_path, feature)
    code = (
        "import sys; from pathlib import Path; from lrm_ros.training.reward.data.sources.oxe import read_oxe\n"
        f"print([len(list(e.open().frames())) for e in read_oxe(Path({str(folder)!r}))], 'tensorflow' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[5])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[3, 3, 3] False", done.stderr


def test_files_of_another_kind_are_refused(tmp_path, feature):
    with pytest.raises(ValueError, match="array_record"):
        read_oxe(small_set(tmp_path, feature, file_format="array_record"))


def test_without_tensorflow_datasets_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ImportError, match=r"lrm_ros\[oxe\]"):
        read_oxe(tmp_path)


def test_text_is_found_in_the_documented_order():
    observation = {"instruction": b"third", "natural_language_instruction": b" "}
    step = {"language_instruction": b"second", "natural_language_instruction": b"first", "observation": observation}
    assert instruction(step) == "first"
    del step["natural_language_instruction"]
    assert instruction(step) == "second"
    del step["language_instruction"]
    assert instruction(step) == "third"
    with pytest.raises(BadEpisode, match="no language instruction"):
        instruction({"observation": {}})


def test_text_of_reads_strings_bytes_and_padded_arrays_and_refuses_the_rest():
    padded = np.zeros(64, np.int32)
    padded[:5] = list("löf\n".encode())
    assert text_of(padded) == "löf"
    assert text_of(b"open\0\0") == text_of("open ") == text_of(np.array([b"open"], object)) == "open"
    assert text_of(np.zeros(8, np.uint8)) == ""
    for bad in (b"\xff\xfe\xff", np.array([300, 5]), np.array([-1])):
        with pytest.raises(BadEpisode, match="not UTF-8"):
            text_of(bad)
    for bad in (np.array([b"a", b"b"], object), 1.5):
        with pytest.raises(BadEpisode, match="language instruction of"):
            text_of(bad)


def test_droid_success_is_read_from_the_path():
    def told(path):
        return success_in({"episode_metadata": {"file_path": path}})

    assert told(b"/nfs/r2d2/AUTOLab/success/2023-07-07/trajectory.h5") is True
    assert told("gs://r2d2/ILIAD/failure/2023-07-07/trajectory.h5") is False
    assert told("/r2d2/successful/x.h5") is None and told("/success/failure/x.h5") is None
    assert success_in({}) is None


def test_the_table_has_the_cameras_of_the_data_sets():
    assert LAYOUTS["fractal20220817_data"].cameras == LAYOUTS["bc_z"].cameras == ("image",)
    assert LAYOUTS["bridge_v2"].cameras == ("image_0", "image_1", "image_2")
    assert LAYOUTS["taco_play"].cameras == ("rgb_static", "rgb_gripper")
    assert LAYOUTS["fmb"].cameras == ("image_side_1", "image_side_2", "image_wrist_1")
    assert LAYOUTS["libero_goal_no_noops"] == (20, ("image", "wrist_image"))
    assert {NYU_ROT} == BGR and NYU_ROT in LAYOUTS
    assert all(layout.cameras and (layout.fps is None or 0 < layout.fps <= 50) for layout in LAYOUTS.values())
