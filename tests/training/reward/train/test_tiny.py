# SPDX-License-Identifier: Apache-2.0
"""The training of the tiny reward model, on a few frames: a disc that moves into a ring."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.training.report.stats import precision_recall
from lrm_ros.training.reward.eval.metrics import roc_auc, spearman
from lrm_ros.training.reward.train.tiny.card import card
from lrm_ros.training.reward.train.tiny.card import main as write_card
from lrm_ros.training.reward.train.tiny.data import (
    TWIN_SHARE,
    SourceSampler,
    load_frames,
    progress_target,
    split,
    to_tensor,
)
from lrm_ros.training.reward.train.tiny.label_head import MAX_WORDS, LabelHead, instruction_tokens
from lrm_ros.training.reward.train.tiny.language import QueryBatches, QuerySampler, query_loss
from lrm_ros.training.reward.train.tiny.model import build_model, build_processor, instructions, prompt_phrases
from lrm_ros.training.reward.train.tiny.train import main
from lrm_ros.training.reward.train.tiny.vision import Tower, initialise
from lrm_ros.types import Frame, Reward, RewardQuery
from lrm_ros.versions import tower_tokens


def scene(way: float) -> np.ndarray:
    """A disc, ``way`` of the way into a ring."""
    y, x = np.mgrid[:96, :96]
    image = np.full((96, 96, 3), 120, np.uint8)
    ring = np.hypot(x - 70, y - 60)
    image[(ring > 12) & (ring < 16)] = 240
    image[np.hypot(x - (20 + 50 * way), y - (20 + 40 * way)) < 7] = (220, 40, 40)
    return image


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of ten episodes; every other episode stops half-way."""
    return write_shards(tmp_path / "data")


def write_shards(folder: Path, sources: tuple[str, ...] = ()) -> Path:
    """Write two shards of ten episodes from these sources in turns, or without a source."""
    folder.mkdir()
    for number in range(2):
        rows: dict[str, list] = {name: [] for name in ("frames", "progress", "success", "episode", "t", "kind")}
        tasks = []
        for index in range(10 * number, 10 * number + 10):
            about: dict[str, Any] = {"episode": index, "task": f"put the red toy pig {index} in the bowl"}
            if sources:
                about["source"] = sources[index % len(sources)]
            tasks.append(json.dumps(about))
            for t, way in enumerate(np.linspace(0, 1.0 if index % 2 == 0 else 0.5, 6)):
                values = (scene(way), way, way == 1.0, index, t, index % 2)
                for name, value in zip(rows, values, strict=True):
                    rows[name].append(value)
        arrays: dict[str, Any] = {name: np.array(values) for name, values in rows.items()}
        np.savez(folder / f"shard_{number:04d}.npz", tasks=np.array(tasks), **arrays)
    return folder


def test_no_episode_is_both_trained_on_and_held_out(shards):
    training, held_out = split(load_frames([shards]))
    assert len(training.images) == 108 and len(held_out.images) == 12
    assert not set(training.episode) & set(held_out.episode)
    assert training.tasks[3] == "put the red toy pig 3 in the bowl"


def test_a_folder_without_shards_and_a_shard_without_labels_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no shards.*python -m lrm_ros.sim.twin.generate"):
        load_frames([tmp_path])
    np.savez(tmp_path / "shard_0000.npz", frames=np.zeros((1, 96, 96, 3), np.uint8))
    with pytest.raises(ValueError, match="has no progress, success, episode, kind, tasks"):
        load_frames([tmp_path])


def test_wrong_data_for_the_training_is_a_message_without_a_traceback(tmp_path, capsys):
    (tmp_path / "shard-00000.parquet").touch()
    with pytest.raises(SystemExit) as stopped:
        main(["--data", str(tmp_path), "--out", str(tmp_path / "model")])
    assert stopped.value.code == 2
    assert f"'{tmp_path}' holds keyframes, which train adapters" in capsys.readouterr().err
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit) as stopped:
            main(["--data", str(tmp_path), "--out", str(tmp_path / "model"), "--device", "cuda"])
        assert stopped.value.code == 1 and "no CUDA device here" in capsys.readouterr().err


def test_episodes_of_two_folders_keep_their_numbers_tasks_and_sources_apart(shards, tmp_path):
    frames = load_frames([shards, write_shards(tmp_path / "more", ("maniskill/a", "metaworld/b"))])
    assert frames.sources == ("twin", "maniskill/a", "metaworld/b")
    assert len(np.unique(frames.episode)) == 40 and len(frames.tasks) == 40
    assert np.bincount(frames.source).tolist() == [120, 60, 60]
    assert {frames.sources[i] for i in frames.source[frames.episode == 21]} == {"metaworld/b"}
    assert frames.tasks[21] == "put the red toy pig 1 in the bowl"
    with pytest.raises(ValueError, match="no folder"):
        load_frames([])


def test_sources_are_drawn_by_their_share_not_by_their_number_of_frames(shards, tmp_path):
    frames = load_frames([shards, write_shards(tmp_path / "more", ("maniskill/a",) * 3 + ("metaworld/b",))])
    assert np.bincount(frames.source).tolist() == [120, 90, 30]
    drawn = np.bincount(frames.source[SourceSampler(frames)(np.random.default_rng(0), 20000)]) / 20000
    others = (1 - TWIN_SHARE) * np.array([15, 5]) / 20  # by their episodes
    np.testing.assert_allclose(drawn, [TWIN_SHARE, *others], atol=0.02)
    done = np.flatnonzero(frames.success & (frames.source == 1))
    assert set(SourceSampler(frames, done)(np.random.default_rng(0), 100)) == set(done)
    never = frames.select(np.flatnonzero(~frames.success))
    with pytest.raises(ValueError, match="no frame shows a finished task"):
        QuerySampler(never, 0)


def test_made_up_words_change_the_instruction_and_nothing_else(shards):
    frames = load_frames([shards])
    processor = build_processor()
    model = build_model(processor)
    tokens = torch.zeros(len(frames.images), 36, 128)
    seen = []
    embed = model.get_input_embeddings()
    embed.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    for noise in (0.0, 1.0):
        batch = QueryBatches(model, processor, frames, 0, 1, noise).of("completion", 1)
        query_loss(model, batch, tokens[batch.rows])
    plain, noisy = (ids[0].tolist() for ids in seen)
    words = range(256, processor.tokenizer.vocab_size)
    for a, b in zip(plain, noisy, strict=True):
        assert a == b or (a in words and b in words)
    text = processor.tokenizer.decode(plain)
    assert "toy" in text and "toy pig" not in processor.tokenizer.decode(noisy)


def test_the_tokenizer_knows_the_words_of_the_trained_tasks_only():
    texts = instructions()
    assert "put the red toy giraffe in the bowl" in texts and "open the window" in texts
    assert not any("faucet to shut" in text or "button from the top" in text for text in texts)


def test_the_label_head_reads_the_words_of_the_task_in_their_order(shards):
    frames = load_frames([shards])
    tokenizer = build_processor().tokenizer
    words = instruction_tokens(frames, tokenizer)
    assert words.shape == (120, MAX_WORDS) and words.min() == 0
    assert tokenizer.decode((words[0][words[0] > 0] - 1).tolist()) == frames.tasks[int(frames.episode[0])]
    assert words.shape[1] == MAX_WORDS
    torch.manual_seed(0)
    head = LabelHead(16, 4, len(tokenizer)).eval()
    vectors = torch.randn(1, 4, 16).expand(2, -1, -1)

    def said(*tasks: str) -> torch.Tensor:
        asked = frames.select(np.array([0, 6]))
        return head(vectors, instruction_tokens(replace(asked, tasks=dict(enumerate(tasks))), tokenizer))

    first, second = said("put the red can on the green cube", "put the green can on the red cube")
    assert (first - second).abs().max() > 1e-3
    first, second = said("lift the can", "lift the can")
    torch.testing.assert_close(first, second)


def test_a_progress_label_is_shared_by_its_two_neighbours():
    target = progress_target(np.array([0.0, 0.34, 1.0], np.float32))
    np.testing.assert_allclose(target @ torch.arange(11).float() / 10, [0.0, 0.34, 1.0], atol=1e-6)
    assert target[1, 3] == pytest.approx(0.6, abs=1e-5) and target[1, 4] == pytest.approx(0.4, abs=1e-5)


def test_the_batched_tower_equals_transformers_own_forward():
    processor = build_processor()
    tower = Tower(build_model(processor).model.visual, len(processor.tokenizer), (2, 1, 2, 1)).eval()
    initialise(tower)
    images = np.stack([scene(0.2), scene(0.9)])
    inputs = processor.image_processor(images=list(images), return_tensors="pt")
    with torch.inference_mode():
        stock = tower_tokens(tower.visual, inputs["pixel_values"], inputs["image_grid_thw"])
        batched, _ = tower.encode(to_tensor(images))
        rows = tower.in_rows(tower.patches(to_tensor(images)))
    np.testing.assert_allclose(batched.flatten(0, 1), stock, atol=1e-4)
    corner = to_tensor(images)[0, :, 16:32, 80:96].flatten()  # second row, last column of patches
    np.testing.assert_array_equal(rows[0, 6 + 5], corner)


def test_every_fixed_piece_of_prompt_and_answer_is_one_token():
    tokenizer = build_processor().tokenizer
    for phrase in prompt_phrases():
        assert len(tokenizer(phrase)["input_ids"]) == 1, phrase
    for head in HEADS.values():
        for value in head.values:
            assert len(tokenizer(head.answer(value))["input_ids"]) == 3
        for candidate in head.candidates:
            assert len(tokenizer(candidate)["input_ids"]) == 1


def test_the_tokenizer_reads_back_what_it_wrote():
    tokenizer = build_processor().tokenizer
    for text in ("put the red toy giraffe in the bowl", "Schiebe den Würfel nach links! 42 cm", "no, yes; 0.5"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_shipped_model_is_small_and_complete():
    size = sum(path.stat().st_size for path in TINY_FOLDER.iterdir())
    assert size <= 16 * 2**20
    for name in ("config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json", "README.md"):
        assert (TINY_FOLDER / name).is_file(), name


def test_the_figures_are_those_of_the_textbook():
    # Ranks 2.5, 1, 2.5 and 2, 1, 3.
    assert spearman(np.array([3.0, 1.0, 3.0]), np.array([2.0, 1.0, 3.0])) == pytest.approx(math.sqrt(3) / 2)
    truth = np.array([True, True, False, False])
    assert roc_auc(truth, np.array([0.9, 0.4, 0.5, 0.1])) == 0.75
    found = precision_recall(np.array([True, False, True, False]), truth)
    assert (found["precision"], found["recall"], found["n"]) == (0.5, 0.5, 4)


def test_training_from_shards_gives_a_model_that_loads_and_answers_and_figures(shards, tmp_path):
    out, figures_file = tmp_path / "model", tmp_path / "figures.json"
    arguments = ["--data", str(shards), "--out", str(out), "--scale", "0.0005", "--json", str(figures_file)]
    assert main(arguments) == 0
    figures = json.loads(figures_file.read_text())
    assert figures == json.loads((out / "training.json").read_text())
    assert figures["left_out"]["frames"] == 12 and figures["left_out"]["judge_episodes"]["n"] == 2
    assert figures["sources"] == {"twin": 108}
    assert "Not measured yet" in (out / "README.md").read_text()
    answer = QwenRewardModel(out, device="cpu").score(
        [RewardQuery("put the red toy pig in the bowl", "progress", (Frame(0, "front", scene(0.3)),))]
    )[0]
    assert isinstance(answer, Reward) and 0 <= answer.value <= 1


def test_a_trained_model_is_trained_on_and_the_card_tells_of_both(shards, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    arguments = ["--data", str(shards), "--scale", "0.0005"]
    assert main([*arguments, "--out", str(first)]) == 0
    assert main([*arguments, "--out", str(second), "--start", str(first)]) == 0
    about, before = (json.loads((folder / "training.json").read_text()) for folder in (second, first))
    assert about["before"]["seconds"] == before["seconds"] and set(about["seconds"]) == {"together", "measure"}
    assert "went on from a model" in (second / "README.md").read_text()
    assert (first / "model.safetensors").read_bytes() != (second / "model.safetensors").read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--out", str(tmp_path / "third"), "--start", str(tmp_path)])
    assert stopped.value.code == 2 and "is no tiny model" in capsys.readouterr().err


def test_a_part_of_the_pairs_shows_that_nothing_happens_and_is_even(shards):
    sampler = QuerySampler(load_frames([shards]), 0)
    drawn = [query for _ in range(400) for query in sampler.draw("contrastive")]
    frames = sampler.frames
    even = [rows for rows, _, _, target in drawn if target.tolist() == [0.5, 0.5]]
    assert 100 < len(even) < 220, "of 800"
    assert all(abs(frames.progress[a] - frames.progress[b]) <= 0.005 for a, b in even)
    assert sum(a == b for a, b in even) > 30, "also one frame twice"
    for (a, b), _, _, target in drawn:
        if target[0] != 0.5:
            assert bool(target[1] == 1) == bool(frames.progress[b] > frames.progress[a])
    for (first, _, text, target), (second, _, same, other) in zip(drawn[::2], drawn[1::2], strict=True):
        assert first == second[::-1] and text == same and target.tolist() == other.tolist()[::-1]


def test_done_and_not_done_weigh_alike_however_many_texts_are_not_done(shards):
    frames = load_frames([shards])
    processor = build_processor()
    batches = QueryBatches(build_model(processor, 0), processor, frames, 0, 96)
    asked = batches.of("completion", 96)
    done = asked.target[:, 1] > 0.5
    assert 0 < done.sum() < len(done)
    assert float(asked.weights[done].sum()) == pytest.approx(float(asked.weights[~done].sum()))
    assert float(asked.weights.mean()) == pytest.approx(1.0)
    assert (batches.of("progress", 8).weights == 1).all()


def test_the_card_shows_the_figures_of_the_evaluation(tmp_path, capsys):
    about = json.loads((TINY_FOLDER / "training.json").read_text())
    metrics = json.loads((TINY_FOLDER / "metrics.json").read_text())
    assert card(about, metrics) == (TINY_FOLDER / "README.md").read_text()
    assert f"{metrics['zero_shot']['progress']['mae']:.3f}" in card(about, metrics)
    about["left_out"]["judge_episodes"] |= {"precision": None}
    recall = about["left_out"]["judge_episodes"]["recall"]
    assert f"precision -, recall {recall:.3f}. These" in card(about, None)
    with pytest.raises(SystemExit):
        write_card([str(tmp_path)])
    assert "training.json" in capsys.readouterr().err


def test_the_card_of_a_training_with_several_texts_says_what_was_held_out_and_left_out():
    about = json.loads((TINY_FOLDER / "training.json").read_text())
    about |= {"size": "small", "blind": "text", "without": ["twin"], "held_out": ["metaworld/door-open-v3"]}
    text = card(about, None)
    assert "# small: a Large Reward Model" in text and "shown with several texts" in text
    assert "metaworld/door-open-v3. Left out, too: twin." in text and "trained without text" in text
