# SPDX-License-Identifier: Apache-2.0
"""Contrast sets: labels, pairs, figures, and the command on the shipped model."""

import functools
import json
from dataclasses import replace

import numpy as np
import pytest

from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.sim.instructions import Instruction, Labelled, instructions_json, instructions_of, joined_labels
from lrm_ros.training.reward.data.sources.episode import BadEpisode, Entry, SourceEpisode, array_reader
from lrm_ros.training.reward.data.sources.generated import read_generated
from lrm_ros.training.reward.eval.blind import BLIND_TASK, GREY
from lrm_ros.training.reward.eval.command import main
from lrm_ros.training.reward.eval.contrast import (
    Answers,
    ask,
    contrast_metrics,
    contrast_table,
    found_states,
    make_contrast_set,
)

INSTRUCTIONS = (
    Instruction("own", ("put the red toy pig in the bowl", "place the red toy pig in the bowl")),
    Instruction("thing", ("put the blue toy pig in the bowl",)),
    Instruction("opposite", ("take the red toy pig out of the bowl",)),
    Instruction("nonsense", ("it is raining today",)),
)


def labels_of(progress):
    """Progress and done of the four instructions while the red pig goes into the bowl."""
    done = 1.0 if progress == 1 else 0.0
    return [[progress, done], [0.1, 0.0], [1 - progress, 1 - done], [0.0, 0.0]]


def episode(source="twin-sort", asked=True):
    ways = np.linspace(0, 1, 5)
    frames = np.zeros((5, 96, 96, 3), np.uint8)
    for at, way in enumerate(ways):
        frames[at, 40:50, round(80 * way) : round(80 * way) + 10] = (200, 30, 30)
    labels = np.array([labels_of(way) for way in ways], np.float32)
    return SourceEpisode(
        source, "0", INSTRUCTIONS[0].wordings[0], 5.0, 5, array_reader(frames), True, "success",
        ways.astype(np.float32), ways == 1, asked=Labelled(INSTRUCTIONS, labels) if asked else None,
    )  # fmt: skip


def entries(*episodes):
    return [Entry(one.source, one.episode_id, functools.partial(lambda given: given, one)) for one in episodes]


@pytest.fixture
def contrast():
    return make_contrast_set(entries(episode(), episode("tabletop/box")), frames=3)


def perfect(contrast):
    return Answers(contrast.progress.copy(), contrast.done.copy())


def write(folder):
    one = episode()
    about = {"episode": 0, "task": one.task, "kind": "success", "source": one.source}
    folder.mkdir()
    np.savez(
        folder / "shard_0000.npz",
        frames=np.stack(list(one.frames())), progress=one.progress, success=one.done, episode=np.zeros(5, int),
        kind=np.zeros(5, int), labels=joined_labels([one.asked.labels], 6),
        tasks=np.array([json.dumps(about | {"instructions": instructions_json(INSTRUCTIONS)})]),
    )  # fmt: skip
    return folder


def test_every_picture_is_asked_every_text_and_the_own_one_in_all_wordings(contrast):
    assert len(contrast.images) == 6 and len(contrast.texts) == 6 * 5
    assert contrast.first.sum() == 24 and set(contrast.sources) == {"twin-sort", "tabletop/box"}
    last = contrast.picture == 2
    assert contrast.done[last].tolist() == [1, 1, 0, 0, 0] and contrast.progress[last][0] == 1.0
    rows = contrast.first & (contrast.kinds == "own")
    assert set(contrast.texts[rows]) == {INSTRUCTIONS[0].wordings[0]}


def test_a_model_that_reads_has_all_pairs_right_and_one_that_does_not_half_of_them(contrast):
    found = contrast_metrics(contrast, perfect(contrast), rounds=10)
    assert found["pairs"] == found["progress_pairs"] == found["found"] == found["found_any"] == 1.0
    assert found["paraphrase"] == 0.0 and found["paraphrase_n"] == 6
    # The opposite differs in every picture, the others where the own one is done.
    assert {kind: part["n"] for kind, part in found["kinds"].items()} == {"thing": 2, "opposite": 6, "nonsense": 2}
    assert all(part["pairs"] == part["roc_auc"] == 1.0 for part in found["kinds"].values())
    assert set(found["sources"]) == {"twin-sort", "tabletop/box"} and found["pairs_ci95"] == [1.0, 1.0]
    per_picture = np.array([contrast.done[contrast.picture == number][0] for number in contrast.picture])
    looks = contrast_metrics(contrast, Answers(per_picture, per_picture))
    assert looks["pairs"] == 0.5 and looks["kinds"]["opposite"]["roc_auc"] == 0.5
    assert looks["found"] == 1.0, "by the own texts alone it seems perfect"
    assert looks["found_any"] < 1.0
    wrong = contrast_metrics(contrast, Answers(1 - contrast.progress, 1 - contrast.done))
    assert wrong["pairs"] == 0.0 and wrong["progress_pairs"] == 0.0
    text = contrast_table({"model": found, "without text": looks})
    assert "opposite" in text and "0.500" in text


def test_a_label_that_is_not_known_is_in_no_pair(contrast):
    done = np.where(contrast.kinds == "opposite", np.nan, contrast.done)
    found = contrast_metrics(replace(contrast, done=done), perfect(contrast))
    assert found["kinds"]["opposite"]["n"] == 0 and found["kinds"]["opposite"]["pairs"] is None
    assert found["kinds"]["opposite"]["progress_n"] > 0


def test_found_states_are_those_above_what_one_in_twenty_false_ones_reaches():
    done = np.array([1.0] * 4 + [0.0] * 100 + [np.nan])
    answer = np.array([0.99, 0.97, 0.5, 0.1, *np.linspace(0, 1, 100), 1.0])
    assert found_states(done, answer, np.ones(105, bool)) == 0.5
    assert found_states(done, answer, done == 1) is None


def test_episodes_that_name_no_other_text_are_left_out_and_none_is_an_error():
    def bad():
        raise BadEpisode("broken")

    some = make_contrast_set([Entry("twin", "1", bad), *entries(episode(asked=False), episode())], frames=2)
    assert len(some.images) == 2
    with pytest.raises(ValueError, match="make shards that do"):
        make_contrast_set(entries(episode(asked=False)))


def test_labels_must_fit_the_instructions():
    with pytest.raises(ValueError, match=r"\(5, 3, 2\) do not fit 4 instructions"):
        Labelled(INSTRUCTIONS, np.zeros((5, 3, 2), np.float32))
    with pytest.raises(ValueError, match="kind 'other' of an instruction"):
        Instruction("other", ("x",))
    with pytest.raises(ValueError, match="has no text"):
        Instruction("own", (" ",))


def test_shards_keep_texts_and_labels(tmp_path):
    again = next(iter(read_generated(write(tmp_path / "shards")))).open()
    assert again.asked.instructions == INSTRUCTIONS == instructions_of(instructions_json(INSTRUCTIONS))
    np.testing.assert_allclose(again.asked.labels, episode().asked.labels, atol=1e-3)


def test_a_blind_control_reads_one_text_or_sees_grey(contrast):
    seen = []

    class Model:
        def score(self, queries, readout):
            seen.extend(queries)
            return QwenRewardModel(TINY_FOLDER, "tiny", "cpu").score(queries, readout)

    few = make_contrast_set(entries(episode()), frames=2)
    answers = ask(Model(), few, blind="text")
    assert {query.task for query in seen} == {BLIND_TASK}
    assert contrast_metrics(few, answers)["pairs"] == 0.5
    seen.clear()
    ask(Model(), few, blind="pictures")
    assert all((query.frames[0].image == GREY).all() for query in seen)
    assert {query.task for query in seen} == set(few.texts)


def test_the_command_writes_contrast_figures_beside_a_control_and_its_page(tmp_path, capsys):
    shards, out = write(tmp_path / "shards"), tmp_path / "out"
    arguments = ["--contrast", str(shards), "--out", str(out), "--rounds", "5"]
    assert main([*arguments, "--without", f"text={TINY_FOLDER}"]) == 0
    assert "without text" in capsys.readouterr().out
    found = json.loads((out / "metrics.json").read_text())["contrast"]
    assert set(found) == {"model", "without text"} and found["without text"]["pairs"] == 0.5
    html = (out / "report.html").read_text()
    assert "Does it read the instruction?" in html and "trained without text" in html and ">nan" not in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give keyframes with --data, or shards"),
        (["--contrast", "x", "--without", "sound=y"], "trained without text or pictures"),
        (["--contrast", "nowhere"], "holds no shards"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--out", str(tmp_path)])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
