# SPDX-License-Identifier: Apache-2.0
"""Training of the tiny model on several texts of one picture: sampling, labels, controls, checkpoints."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lrm_ros.reward.models import find_model
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.sim.instructions import Instruction, instructions_json
from lrm_ros.sim.seen import HELD, SIDE
from lrm_ros.training.reward.eval.blind import BLIND_TASK, GREY
from lrm_ros.training.reward.train.tiny import loop
from lrm_ros.training.reward.train.tiny.data import blinded, left_out, load_frames
from lrm_ros.training.reward.train.tiny.label_head import OUTPUTS, LabelHead
from lrm_ros.training.reward.train.tiny.language import TEXTS, QueryBatches, QuerySampler
from lrm_ros.training.reward.train.tiny.loop import fit
from lrm_ros.training.reward.train.tiny.model import SIZES, build_model, build_processor
from lrm_ros.training.reward.train.tiny.prompts import Prompts
from lrm_ros.training.reward.train.tiny.texts import OWN_SHARE, TextSampler, Words, reading_metrics, text_loss
from lrm_ros.training.reward.train.tiny.things import PlaceHead, Places, place_loss, places_right, spread
from lrm_ros.training.reward.train.tiny.train import main
from lrm_ros.training.reward.train.tiny.vision import Questions, Tower, tower_loss
from lrm_ros.types import Frame, Reward, RewardQuery


def scene(red: float, blue: float) -> np.ndarray:
    """A red and a blue disc, each somewhere on its way into a ring."""
    y, x = np.mgrid[:96, :96]
    image = np.full((96, 96, 3), 120, np.uint8)
    image[(np.hypot(x - 70, y - 48) > 16) & (np.hypot(x - 70, y - 48) < 20)] = 240
    image[np.hypot(x - (20 + 50 * red), y - 40) < 7] = (220, 40, 40)
    image[np.hypot(x - (20 + 50 * blue), y - 56) < 7] = (40, 40, 220)
    return image


ASKED = (
    Instruction("own", ("put the red ball in the ring", "place the red ball in the ring")),
    Instruction("thing", ("put the blue ball in the ring",)),
    Instruction("opposite", ("take the red ball out of the ring",)),
    Instruction("nonsense", ("it is raining today",)),
)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Twenty episodes of two sources; in every other one the blue disc is in the ring from the start.

    Of the source "twin" it is known what is where.
    """
    folder = tmp_path / "data"
    folder.mkdir()
    names = ("frames", "progress", "success", "episode", "kind", "labels", "cells", "where")
    rows: dict[str, list] = {name: [] for name in names}
    tasks = []
    for index in range(20):
        about = {"episode": index, "task": ASKED[0].wordings[0], "source": ("twin", "tabletop/box")[index % 4 // 2]}
        if about["source"] == "twin":
            about["things"] = ["red ball", "ring"]
        tasks.append(json.dumps(about | {"instructions": instructions_json(ASKED)}))
        blue = float(index % 2)
        for way in np.linspace(0, 1, 5):
            done = float(way == 1)
            labels = [[way, done], [blue, blue], [1 - way, float("nan") if 0.3 < way < 1 else 1 - done], [0, 0]]
            cells = np.zeros((SIDE, SIDE), np.uint8)
            cells[6, 8], cells[5, round(20 + 50 * way) // 8] = 2, 1
            values = (scene(way, blue), way, way == 1, index, 0, labels, cells, [2 * int(way == 1), 0])
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    arrays = {name: np.array(values) for name, values in rows.items()}
    np.savez(folder / "shard_0000.npz", tasks=np.array(tasks), **arrays)
    return folder


def test_texts_come_with_the_shards_and_the_own_label_is_that_of_the_episode(shards):
    frames = load_frames([shards])
    assert frames.instructions[3] == ASKED and frames.labels.shape == (100, 4, 2)
    np.testing.assert_allclose(frames.labels[:, 0, 0], frames.progress, atol=1e-3)
    assert (frames.labels[:, 0, 1] == frames.success).all()
    some = frames.select(np.arange(10, 20))
    assert some.labels.shape == (10, 4, 2) and some.instructions[3] == ASKED


def test_shards_without_texts_ask_their_own_instruction_only(shards, tmp_path):
    with np.load(shards / "shard_0000.npz") as shard:
        arrays = {name: shard[name] for name in shard.files if name != "labels"}
    arrays["tasks"] = np.array([json.dumps({"episode": n, "task": "open the door", "source": "m"}) for n in range(20)])
    (tmp_path / "old").mkdir()
    np.savez(tmp_path / "old" / "shard_0000.npz", **arrays)
    frames = load_frames([shards, tmp_path / "old"])
    assert frames.labels.shape == (200, 4, 2)
    assert frames.instructions[25] == (Instruction("own", ("open the door",)),)
    assert np.isnan(frames.labels[100:, 1:]).all()
    drawn = TextSampler(frames).draw(np.arange(100, 200), 4, np.random.default_rng(0))
    assert (drawn == 0).all()


def test_done_and_undone_texts_of_one_picture_are_drawn_side_by_side(shards):
    frames = load_frames([shards])
    sampler, rng = TextSampler(frames), np.random.default_rng(0)
    row = int(np.flatnonzero((frames.progress == 0) & (frames.labels[:, 1, 1] == 1))[0])
    drawn = sampler.draw(np.full(500, row), 8, rng)
    share = np.bincount(drawn.flatten(), minlength=4) / 4000
    assert share[0] == pytest.approx(OWN_SHARE, abs=0.03)
    assert share[1] == pytest.approx(share[2], abs=0.03), "both are done"
    assert share[1] + share[2] == pytest.approx(0.4 * (1 - OWN_SHARE), abs=0.03)
    texts = sampler.texts(np.full(500, row), drawn, rng)
    assert {text for text, number in zip(texts, drawn.flatten(), strict=True) if number == 0} == set(ASKED[0].wordings)
    there = sampler.there(np.array([row]), np.array([[0, 1, 2, 3]]))[0]
    np.testing.assert_array_equal(there, [1, 1, 1, np.nan])


def test_an_unknown_label_is_not_learnt():
    outputs = torch.zeros(1, 3, OUTPUTS, requires_grad=True)
    labels = np.array([[[0.5, np.nan, np.nan], [np.nan, 1.0, 0.0], [np.nan, np.nan, np.nan]]], np.float16)
    text_loss(outputs, torch.from_numpy(labels).float()).backward()
    gradient = outputs.grad[0].abs()
    assert gradient[0, :11].sum() > 0 and gradient[0, 11:].sum() == 0
    assert gradient[1, :11].sum() == 0 and gradient[1, 11] > 0 and gradient[1, 12] > 0
    assert gradient[2].sum() == 0


def test_queries_ask_several_texts_of_one_picture_with_their_own_targets(shards):
    sampler = QuerySampler(load_frames([shards]), 0)
    frames, several = sampler.frames, 0
    for _ in range(100):
        group = sampler.draw("completion")
        assert len(group) <= TEXTS and len({tuple(rows) for rows, *_ in group}) <= 1
        several += len({text for _, _, text, _ in group}) > 1
        for (row,), _, text, target in group:
            number = next(n for n, one in enumerate(ASKED) if text in one.wordings)
            assert float(target[1]) == float(frames.labels[row, number, 1])
    assert several > 50
    for _ in range(50):
        for (a, b), _, text, target in sampler.draw("contrastive"):
            number = next(n for n, one in enumerate(ASKED) if text in one.wordings)
            delta = float(frames.labels[b, number, 0]) - float(frames.labels[a, number, 0])
            assert target[1] - target[0] == np.sign(delta) or (target[0] == 0.5 and abs(delta) <= 0.005)


def test_the_label_head_learns_which_thing_is_meant_and_what_is_asked_of_it():
    """Things at random places, each in the ring or not; asked "into" or "out of" of one, or of one not there."""
    generator = torch.Generator().manual_seed(0)

    def batch(n: int = 32, q: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        places = torch.stack([torch.randperm(6, generator=generator)[:3] for _ in range(n)])
        inside = torch.randint(0, 2, (n, 3), generator=generator)
        vectors = torch.zeros(n, 6, 32)
        for colour in range(3):
            vectors[torch.arange(n), places[:, colour], colour] = 1
            vectors[torch.arange(n), places[:, colour], 10] = inside[:, colour].float()
        out, colour = (torch.randint(0, high, (n, q), generator=generator) for high in (2, 4))
        states = torch.gather(torch.cat([inside, torch.zeros(n, 1, dtype=torch.long)], 1), 1, colour)
        words = torch.stack([out + 1, torch.full_like(out, 3), colour + 4], -1)
        return vectors, words, torch.where(colour == 3, 0, states ^ out).float()

    torch.manual_seed(0)
    head = LabelHead(32, 6, 10)

    def loss(step: int) -> torch.Tensor:
        vectors, words, done = batch()
        return torch.nn.functional.binary_cross_entropy_with_logits(head(vectors, words)[..., 11], done)

    fit(head, int, loss, 250, 4e-3, 0, "head", lambda: "")
    vectors, words, done = batch(100)
    with torch.inference_mode():
        right = (head(vectors, words)[..., 11] > 0) == (done > 0.5)
        alone = head(vectors, words[:, 0])
    assert right.float().mean() > 0.97
    assert alone.shape == (100, OUTPUTS)
    torch.testing.assert_close(alone, head(vectors, words)[:, 0], atol=1e-5, rtol=1e-4)


def test_a_network_that_does_not_read_orders_half_of_the_pairs(shards):
    frames = load_frames([shards])
    tokenizer = build_processor().tokenizer
    tower = Tower(build_model(build_processor()).model.visual, len(tokenizer), (2, 1, 2, 1)).eval()
    pictures, asked, labels, targets = Questions(frames, Words(tokenizer), Places(frames), 0, pictures=4, texts=6)(0)
    assert asked is not None and labels is not None
    assert asked.shape[:2] == (4, 6) and labels.shape == (4, 6, 3) and pictures.images.shape == (4, 96, 96, 3)
    assert targets.shape == (4, SIDE * SIDE, 4)
    shown = blinded(frames, "text")
    assert reading_metrics(tower, shown, Words(tokenizer)).startswith("pairs 0.500 of ")

    class Always(torch.nn.Module):
        """Says that the first text is done, whatever the picture is."""

        def forward(self, images: torch.Tensor, words: torch.Tensor) -> tuple[torch.Tensor]:
            outputs = torch.zeros(*words.shape[:2], OUTPUTS)
            outputs[:, 0, 11] = 1.0
            return (outputs,)

    found = reading_metrics(Always(), frames, Words(tokenizer), 100)
    assert "opposite 0.33" in found and "nonsense 1.00" in found, "right where the own text is done"


def test_every_place_is_told_what_is_there_and_what_that_is_in(shards):
    frames = load_frames([shards])
    assert Places(frames).known.tolist() == [frames.sources[source] == "twin" for source in frames.source]
    assert (Places(frames).targets(np.flatnonzero(~Places(frames).known)) == -1).all()
    cells, where = np.zeros((len(frames.images), SIDE, SIDE), np.uint8), np.zeros((len(frames.images), 3), np.uint8)
    cells[:, 2, 3], cells[:, 0, 0] = 1, 3
    where[0], where[1], where[2] = (3, 0, 0), (HELD, 0, 0), (2, 0, 0)
    things = dict.fromkeys(frames.things, ("red can", "blue can", "box"))
    places = Places(replace(frames, things=things, cells=cells, where=where))
    assert (places.kinds, places.colours) == (["", "held", "box", "can"], ["", "blue", "red"])
    targets = places.targets(np.array([0, 1, 2]))
    assert targets[:, 2 * SIDE + 3].tolist() == [[3, 2, 2, 0], [3, 2, 1, 0], [3, 2, 3, 1]]
    assert targets[0, 0].tolist() == [2, 0, 0, 0] and (targets[:, 1] == 0).all()
    turned = replace(frames, things=dict.fromkeys(frames.things, ("box", "blue can", "red can")), cells=cells)
    assert places.of(replace(turned, where=where)).targets(np.array([3]))[0, 0].tolist() == [3, 2, 0, 0]


def test_places_are_learnt_where_they_are_known_and_spread_over_squares():
    torch.manual_seed(0)
    features = torch.randn(40, 9, 8, generator=torch.Generator().manual_seed(1))
    head = PlaceHead(8, (3, 2, 3, 2), each=2)
    assert head(features).shape == (40, 36, 10)
    square = torch.arange(2 * 4 * 4.0).view(1, 4, 8)  # 2 x 2 squares of 2 x 2 places with 2 values each
    assert spread(square, 2)[0, :, 0].tolist() == [0, 2, 8, 10, 4, 6, 12, 14, 16, 18, 24, 26, 20, 22, 28, 30]
    targets = np.zeros((40, 36, 4), np.int64)
    targets[..., 0] = spread((features[..., :4] > 0.7).long(), 2)[..., 0].numpy() * 2
    targets[..., 1:] = targets[..., :1] // 2 * np.array([1, 2, 1])
    targets[:10] = -1
    targets = torch.from_numpy(targets)
    first = place_loss(head(features), targets, head.sizes)
    fit(head, int, lambda _: place_loss(head(features), targets, head.sizes), 200, 3e-2, 0, "places", lambda: "")
    assert place_loss(head(features), targets, head.sizes) < 0.3 * first
    assert min(places_right(head(features), targets, head.sizes)) > 0.9
    assert place_loss(head(features), torch.full_like(targets, -1), head.sizes) == 0


def test_controls_lose_text_or_pictures_and_worlds_are_left_out(shards):
    frames = load_frames([shards])
    deaf = blinded(frames, "text")
    assert {text for several in deaf.instructions.values() for one in several for text in one.wordings} == {BLIND_TASK}
    assert set(deaf.tasks.values()) == {BLIND_TASK} and deaf.images is not None and deaf.images.std() > 0
    assert (blinded(frames, "pictures").images == GREY).all()
    rest = left_out(frames, ["tabletop/"])
    assert {frames.sources[number] for number in rest.source} == {"twin"} and len(rest.images) == 50
    assert left_out(frames, []) is frames
    with pytest.raises(ValueError, match=r"no source begins with 'metaworld/'; there are: twin, tabletop/box"):
        left_out(frames, ["metaworld/"])
    with pytest.raises(ValueError, match="nothing is left"):
        left_out(frames, ["twin", "tabletop"])


@pytest.mark.parametrize(
    ("head", "images", "goal"), [("contrastive", 2, False), ("completion", 1, False), ("progress", 3, True)]
)
def test_a_prompt_that_a_task_is_put_into_is_the_one_that_the_processor_makes(head, images, goal):
    processor = build_processor()
    prompts = Prompts(processor, build_model(processor))
    for task in ("lift the can", "put the red toy pig, not the can, in the bowl", "Schiebe den Würfel! 42 cm", "x"):
        ids, positions = prompts.build(head, task, images, goal)
        found, places, answer = prompts.get(head, task, images, goal)
        assert torch.equal(found, ids) and torch.equal(places, positions)
        assert ids[answer] == prompts.candidates[head][0][0]


def test_batches_that_other_processes_draw_are_those_of_one_process(shards):
    frames = load_frames([shards])
    processor = build_processor()
    words, places = Words(processor.tokenizer), Places(frames)

    def trained(workers: int) -> torch.Tensor:
        torch.manual_seed(0)
        tower = Tower(build_model(processor).model.visual, len(processor.tokenizer), places.sizes)
        questions = Questions(frames, words, places, 0, pictures=3, texts=2)
        fit(tower, questions, partial(tower_loss, tower), 4, 1e-3, 0, "t", lambda: "", workers=workers)
        return tower.visual.pos_embed.weight.detach()

    assert torch.equal(trained(0), trained(2))
    asked = QueryBatches(build_model(processor), processor, frames, 0, 8, pictures_seed=1)
    one, two = asked(3), asked(3)
    assert torch.equal(one.ids, two.ids) and torch.equal(one.pictures.contrast, two.pictures.contrast)
    assert len(one.target) >= 8 and not torch.equal(asked(4).ids, one.ids)


def test_a_stopped_stage_goes_on_and_ends_as_if_it_had_not_been_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)  # after every step

    def run(until: int, path: Path | None) -> torch.Tensor:
        torch.manual_seed(0)
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))

        def loss(step: int) -> torch.Tensor:
            if step == until:
                raise KeyboardInterrupt
            rng = np.random.default_rng([1, step])
            return module(torch.from_numpy(rng.normal(size=(8, 4)).astype(np.float32))).pow(2).mean()

        fit(module, int, loss, 12, 1e-2, 3, "stage", lambda: "", path)
        return module[0].weight.detach()

    whole = run(-1, None)
    with pytest.raises(KeyboardInterrupt):
        run(7, tmp_path / "stage.pt")
    assert torch.equal(run(-1, tmp_path / "stage.pt"), whole)
    assert torch.equal(run(0, tmp_path / "stage.pt"), whole), "a finished stage is not run again"


@pytest.mark.parametrize("size", SIZES)
def test_every_size_fits_what_ships_and_says_what_is_where(size):
    processor = build_processor(size)
    model = build_model(processor, 0, size)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 7.5e6
    answers = (5, 4, 5, 4)
    tower = Tower(model.model.visual, len(processor.tokenizer), answers).eval()
    images, words = torch.zeros(2, 3, 96, 96), torch.ones(2, 5, 7, dtype=torch.long)
    outputs, places = tower(images, words)
    assert outputs.shape == (2, 5, OUTPUTS) and places.shape == (2, SIDE * SIDE, sum(answers))


def test_a_small_model_is_trained_left_out_resumed_and_answers(shards, tmp_path, capsys, monkeypatch):
    out = tmp_path / "model"
    arguments = ["--data", str(shards), "--out", str(out), "--scale", "0.0005", "--size", "small"]
    arguments += ["--leave-out", "tabletop/"]
    monkeypatch.setattr("lrm_ros.training.reward.train.tiny.train.finish", lambda *_: {})
    assert main(arguments) == 0
    kept = {path.name for path in (out / "checkpoints").glob("*.pt")}
    assert kept == {"places.pt", "vision.pt", "language.pt", "together.pt"}
    with pytest.raises(SystemExit):
        main([*arguments, "--blind", "text"])
    assert "holds checkpoints of other settings" in capsys.readouterr().err
    monkeypatch.undo()
    (out / "checkpoints" / "together.pt").unlink()
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert (
        "places   goes on at step 2 of 2" in said
        and "vision   goes on at step 3 of 3" in said
        and not (out / "checkpoints").exists()
    )
    about = json.loads((out / "training.json").read_text())
    assert (about["size"], about["without"], about["sources"]) == (
        "small",
        ["tabletop/"],
        {"twin": 45, "tabletop/box": 0},
    )
    answer = QwenRewardModel(find_model(str(out)), device="cpu").score(
        [RewardQuery("put the red ball in the ring", "progress", (Frame(0, "front", scene(0.3, 0)),))]
    )[0]
    assert isinstance(answer, Reward) and 0 <= answer.value <= 1
