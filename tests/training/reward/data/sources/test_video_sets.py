# SPDX-License-Identifier: Apache-2.0
"""Data sets of video files (HOI4D, EgoDex, RoboReward, Robometer), written here in their layout and read back."""

import json

import av
import h5py
import numpy as np
import pytest
from datasets import Dataset, Features, Sequence, Value

from lrm_ros.training.reward.data.sources.egodex import description, read_egodex
from lrm_ros.training.reward.data.sources.episode import BadEpisode
from lrm_ros.training.reward.data.sources.hoi4d import action_span, read_hoi4d
from lrm_ros.training.reward.data.sources.robometer import read_robometer
from lrm_ros.training.reward.data.sources.roboreward import read_roboreward


def write_video(path, frames, fps):
    """Write grey frames; frame k is 4k bright, red in its left half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = {"crf": "8"}
        for index in range(frames):
            image = np.full((48, 64, 3), 4 * index, np.uint8)
            image[:, :32, 0] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def numbers(episode, indices):
    """Which frames of the file these are, by their brightness."""
    frames = list(episode.read(indices))
    assert all(frame.shape == (48, 64, 3) and frame[24, 8, 0] > 180 > frame[24, 8, 2] for frame in frames)
    return [round(float(frame[:, 40:, 1].mean()) / 4) for frame in frames]


def outcomes(entries):
    """The task of each episode, or the reason why it cannot be used."""
    said = {}
    for entry in entries:
        try:
            episode = entry.open()
            list(episode.read([0]))
            said[entry.episode_id] = episode.task
        except BadEpisode as error:
            said[entry.episode_id] = f"bad: {error}"
    return said


# --- HOI4D ---------------------------------------------------------------------------------------------------------

CSV = """Category ID,Category,T1,T2,T3,T4,T5,T6
C1,Toy Car,Pick and place,Push toy car,Put it in the drawer,Take it out of the drawer,N/A,N/A
C8,Bucket,Pick and place,Pour water into another bucket,N/A,N/A,N/A,N/A
"""
EVENTS = [("rest", 0, 1.0), ("Reachout", 1.0, 1.6), ("Pickup", 1.6, 2.4), ("putdown", 2.4, 3.0), ("rest", 3.0, 4.0)]


def new_form(duration=4.0, scale=1.0):
    events = [{"id": i, "event": n, "startTime": a * scale, "endTime": b * scale} for i, (n, a, b) in enumerate(EVENTS)]
    return {"info": {"duration": duration}, "events": events}


def old_form():
    marks = [{"id": i, "event": n, "hdTimeStart": a, "hdTimeEnd": b} for i, (n, a, b) in enumerate(EVENTS)]
    return {"info": {"Duration": 4.0}, "markResult": {"marks": marks}}


def sequence(root, name, annotation, video=True):
    folder = root / "ZY20210800001" / "H1" / name
    if video:
        write_video(folder / "align_rgb" / "image.mp4", 60, 15)
    else:
        (folder / "align_rgb").mkdir(parents=True)
        (folder / "align_rgb" / "image.mp4").write_bytes(b"not a video")
    if annotation is not None:
        (folder / "action").mkdir()
        text = annotation if isinstance(annotation, str) else json.dumps(annotation)
        (folder / "action" / "color.json").write_text(text)


@pytest.fixture
def hoi4d(tmp_path):
    (tmp_path / "task_definitions.csv").write_text(CSV)
    return tmp_path


def test_hoi4d_is_cut_to_the_action_in_both_forms_and_on_a_shorter_clock(hoi4d):
    sequence(hoi4d, "C8/N1/S1/s01/T2", new_form())
    sequence(hoi4d, "C8/N2/S1/s01/T2", old_form())
    sequence(hoi4d, "C1/N1/S1/s01/T2", new_form(duration=2.0, scale=0.5))
    episodes = [entry.open() for entry in read_hoi4d(hoi4d)]
    assert [e.task for e in episodes] == ["Toy Car: Push toy car", *["Bucket: Pour water into another bucket"] * 2]
    assert episodes[0].episode_id == "ZY20210800001/H1/C1/N1/S1/s01/T2"
    for episode in episodes:
        assert (episode.length, episode.fps, episode.success, episode.kind) == (30, 15, None, "demonstration")
        assert numbers(episode, [0, 14, 29]) == [15, 29, 44]


def test_hoi4d_annotations_can_lie_in_another_folder(hoi4d):
    sequence(hoi4d / "HOI4D_release", "C8/N1/S1/s01/T1", None)
    sequence(hoi4d / "HOI4D_annotations", "C8/N1/S1/s01/T1", new_form(), video=False)
    entries = read_hoi4d(hoi4d / "HOI4D_release", hoi4d / "HOI4D_annotations", hoi4d / "task_definitions.csv")
    assert outcomes(entries) == {"ZY20210800001/H1/C8/N1/S1/s01/T1": "Bucket: Pick and place"}


def test_hoi4d_bad_sequences_say_why(hoi4d):
    bad = {
        "C1/N1/S1/s01/T5": (new_form(), "no text for this category and task"),
        "C3/N1/S1/s01/T1": (new_form(), "no text for this category and task"),
        "C1/N2/S1/s01/T1": (None, "no action annotation"),
        "C1/N3/S1/s01/T1": ("{", "unreadable action annotation"),
        "C1/N4/S1/s01/T1": ({"events": new_form()["events"]}, "no duration in the action annotation"),
        "C1/N5/S1/s01/T1": ({"info": {"duration": 4}, "events": []}, "no action annotated"),
    }
    for name, (annotation, _) in bad.items():
        sequence(hoi4d, name, annotation)
    sequence(hoi4d, "C1/N6/S1/s01/T1", new_form(), video=False)
    said = {key.removeprefix("ZY20210800001/H1/"): text for key, text in outcomes(read_hoi4d(hoi4d)).items()}
    assert said.pop("C1/N6/S1/s01/T1").startswith("bad: unreadable video")
    assert said == {name: f"bad: {reason}" for name, (_, reason) in bad.items()}


def test_hoi4d_times_outside_the_video_are_refused():
    def span(*times, duration=20.0):
        start, end = times
        return action_span(
            {"info": {"duration": duration}, "events": [{"event": "cut", "startTime": start, "endTime": end}]}
        )

    assert span(5, 10) == (0.25, 0.5)
    assert span(-1, 20.4) == (0, 1)
    for bad in ((25, 30), (5, 5), (float("nan"), 5)):
        with pytest.raises(BadEpisode, match="outside the video"):
            span(*bad)
    for duration in (0, -1, float("inf"), float("nan")):
        with pytest.raises(BadEpisode, match="no duration"):
            span(5, 10, duration=duration)
    with pytest.raises(BadEpisode, match="unreadable action annotation"):
        action_span({"markResult": {"marks": [{"event": "cut"}]}})


def test_hoi4d_without_its_table_or_its_videos_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="HOI4D-Instructions"):
        next(read_hoi4d(tmp_path))
    (tmp_path / "task_definitions.csv").write_text(CSV)
    with pytest.raises(FileNotFoundError, match="align_rgb"):
        next(read_hoi4d(tmp_path))


# --- EgoDex --------------------------------------------------------------------------------------------------------


def egodex_episode(folder, name, frames=6, **attributes):
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        file.attrs.update(attributes)
        for joint in ("leftHand", "rightHand", "camera"):
            file[f"transforms/{joint}"] = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    if frames:
        write_video(folder / f"{name}.mp4", frames, 30)


def test_egodex_takes_the_description_that_was_done(tmp_path):
    both = {"llm_description": "Put the lid on.", "llm_description2": "Take the lid off."}
    lid = tmp_path / "part1" / "add_remove_lid"
    egodex_episode(lid, "0", **both, which_llm_description="1")
    egodex_episode(lid, "1", **both, which_llm_description="2")
    egodex_episode(lid, "2", **both, which_llm_description=2)
    egodex_episode(tmp_path / "test" / "fold", "0", llm_description=b"Fold the towel.")
    episodes = [entry.open() for entry in read_egodex(tmp_path)]
    assert {e.episode_id: e.task for e in episodes} == {
        "part1/add_remove_lid/0": "Put the lid on.",
        "part1/add_remove_lid/1": "Take the lid off.",
        "part1/add_remove_lid/2": "Take the lid off.",
        "test/fold/0": "Fold the towel.",
    }
    assert (episodes[0].source, episodes[0].fps, episodes[0].length, episodes[0].success) == ("egodex", 30, 6, None)
    assert numbers(episodes[0], [1, 5]) == [1, 5]


def test_egodex_bad_episodes_say_why(tmp_path):
    egodex_episode(tmp_path / "a", "0", llm_description="Description unavailable.")
    egodex_episode(tmp_path / "a", "1")
    egodex_episode(tmp_path / "a", "2", frames=0, llm_description="Stir.")
    (tmp_path / "a" / "3.hdf5").write_bytes(b"not HDF5")
    egodex_episode(tmp_path / "a", "4", llm_description="Stir.")
    (tmp_path / "a" / "4.mp4").write_bytes((tmp_path / "a" / "4.mp4").read_bytes()[:200])
    said = outcomes(read_egodex(tmp_path))
    assert said.pop("a/4").startswith("bad: unreadable video")
    assert said == {
        "a/0": "bad: description unavailable",
        "a/1": "bad: no language instruction",
        "a/2": "bad: no video beside the HDF5 file",
        "a/3": "bad: unreadable HDF5 file",
    }
    with pytest.raises(FileNotFoundError, match="no EgoDex episodes"):
        next(read_egodex(tmp_path / "nothing"))


def test_egodex_second_description_must_be_there():
    with pytest.raises(BadEpisode, match="no language instruction"):
        description({"llm_description": "Put the lid on.", "which_llm_description": "2"})


# --- RoboReward ----------------------------------------------------------------------------------------------------


def test_roboreward_scores_become_end_progress_and_success(tmp_path):
    write_video(tmp_path / "train" / "bridge" / "a.mp4", 8, 10)
    write_video(tmp_path / "train" / "robo_arena" / "b.mp4", 5, 10)
    rows = [("bridge/a.mp4", "open the drawer", 5), ("bridge/a.mp4", "close the drawer", 1)]
    rows += [("robo_arena/b.mp4", "stack", reward) for reward in (2, 3, 4)]
    lines = [json.dumps({"file_name": file, "task": task, "reward": reward}) for file, task, reward in rows]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    episodes = [entry.open() for entry in read_roboreward(tmp_path / "train")]
    assert [e.end_progress for e in episodes] == [1, 0, 0.25, 0.5, 0.75]
    assert [e.success for e in episodes] == [True, False, False, False, False]
    assert [e.kind for e in episodes] == ["demonstration", *["failure"] * 4]
    assert [e.source for e in episodes] == [*["roboreward_bridge"] * 2, *["roboreward_robo_arena"] * 3]
    assert len({e.episode_id for e in episodes}) == 5
    assert len({e.episode_id.split("@")[0] for e in episodes}) == 2  # one video, one split
    assert [e.task for e in episodes[:2]] == ["open the drawer", "close the drawer"]
    assert all(e.progress is None and e.done is None for e in episodes)
    assert numbers(episodes[0], [0, 7]) == [0, 7]


def test_roboreward_bad_lines_say_why(tmp_path):
    write_video(tmp_path / "bridge" / "a.mp4", 3, 10)
    row = {"file_name": "bridge/a.mp4", "task": "open", "reward": 3}
    rows = [row, {**row, "reward": 6}, {**row, "reward": True}, {**row, "reward": None}, {**row, "task": None}]
    rows += [{**row, "task": " "}, {**row, "file_name": "bridge/z.mp4"}, {"task": "x", "reward": 1}, [1]]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + "\n{\n\n")
    assert list(outcomes(read_roboreward(tmp_path)).values()) == [
        "open",
        *["bad: the reward is not 1, 2, 3, 4 or 5"] * 3,
        *["bad: no language instruction"] * 2,
        "bad: no video",
        *["bad: unreadable line in metadata.jsonl"] * 3,
    ]
    with pytest.raises(FileNotFoundError, match="train, val or test"):
        next(read_roboreward(tmp_path / "bridge"))


# --- Robometer -----------------------------------------------------------------------------------------------------

FEATURES = Features(
    {
        "id": Value("string"),
        "task": Value("string"),
        "lang_vector": Sequence(Value("float32")),
        "data_source": Value("string"),
        "frames": Value("string"),
        "is_robot": Value("bool"),
        "quality_label": Value("string"),
        "partial_success": Value("float32"),
    }
)


def trajectory(number, **changes):
    row = {
        "id": f"id-{number}",
        "task": "pick the cup",
        "lang_vector": [0.0] * 384,
        "data_source": "soar_rfm",
        "frames": f"soar_rfm/batch_0000/trajectory_{number:04d}.mp4",
        "is_robot": True,
        "quality_label": "successful",
        "partial_success": None,
    }
    return {**row, **changes}


def table(rows):
    return Dataset.from_list(rows, features=FEATURES)


def test_robometer_reads_what_the_converter_saves(tmp_path):
    labels = ["successful", "failure", "suboptimal"]
    rows = [trajectory(i, quality_label=label) for i, label in enumerate(labels)]
    for row in rows:
        write_video(tmp_path / row["frames"], 4, 10)
    table(rows).save_to_disk(str(tmp_path / "soar_rfm"))
    episodes = [entry.open() for entry in read_robometer(tmp_path)]
    assert [(e.episode_id, e.success, e.kind) for e in episodes] == [
        ("id-0", True, "demonstration"),
        ("id-1", False, "failure"),
        ("id-2", False, "suboptimal"),
    ]
    assert (episodes[0].source, episodes[0].task, episodes[0].fps) == ("robometer_soar_rfm", "pick the cup", 10)
    assert numbers(episodes[2], range(4)) == [0, 1, 2, 3]


def test_robometer_reads_a_copy_of_the_hub_repository_and_scores_only_where_they_are_meant(tmp_path):
    clip = "oxe_bridge_v2/shard_0000/episode_000000/clip@image_0.mp4"
    scored = {"quality_label": "failure", "partial_success": 0.25, "frames": clip}
    rows = [
        trajectory(0, data_source="oxe_bridge_v2", frames=clip),
        trajectory(1, data_source="roboreward_bridge", **scored),
        trajectory(
            2, data_source="metaworld_eval", **{**scored, "quality_label": "successful", "partial_success": 0.0}
        ),
    ]
    write_video(tmp_path / clip, 4, 10)
    for name, part in (("b_set", rows[1:]), ("a_set", rows[:1])):
        (tmp_path / name).mkdir()
        table(part).to_parquet(str(tmp_path / name / "train-00000-of-00001.parquet"))
    episodes = [entry.open() for entry in read_robometer(tmp_path)]
    assert [(e.source, e.success, e.end_progress) for e in episodes] == [
        ("robometer_oxe_bridge_v2", True, None),
        ("robometer_roboreward_bridge", False, 0.25),
        ("robometer_metaworld_eval", True, None),
    ]


def test_robometer_bad_rows_say_why(tmp_path):
    write_video(tmp_path / "soar_rfm" / "batch_0000" / "trajectory_0000.mp4", 3, 10)
    here = trajectory(0)["frames"]
    rows = [
        trajectory(0),
        trajectory(1),
        trajectory(2, frames=here, quality_label="unknown"),
        trajectory(3, frames=here, task=""),
        trajectory(4, frames=here, data_source="roboarena", partial_success=1.5),
    ]
    table(rows).save_to_disk(str(tmp_path / "soar_rfm"))
    assert outcomes(read_robometer(tmp_path)) == {
        "id-0": "pick the cup",
        "id-1": "bad: no video",
        "id-2": "bad: quality label 'unknown'",
        "id-3": "bad: no language instruction",
        "id-4": "bad: partial success outside [0, 1]",
    }


def test_robometer_other_tables_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-"):
        next(read_robometer(tmp_path))
    Dataset.from_list([{"id": "x", "task": "y"}]).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="lacks data_source, frames, quality_label"):
        next(read_robometer(tmp_path))
