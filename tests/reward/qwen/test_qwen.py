# SPDX-License-Identifier: Apache-2.0
"""The read-outs and loaders on the shipped tiny Qwen3-VL."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from brightness import write_untrained  # type: ignore[import-not-found]
from plain_answers import TASKS, mixed_queries, noise, plain, values_of  # type: ignore[import-not-found]

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import TINY_FOLDER
from lrm_ros.reward.qwen import language, rows
from lrm_ros.reward.qwen import model as qwen
from lrm_ros.reward.qwen.model import QwenRewardModel
from lrm_ros.reward.qwen.vision import patches_of
from lrm_ros.training.reward.train.tiny.model import VISION
from lrm_ros.types import Reward, RewardQuery, Unscored


def test_the_batched_read_out_equals_one_plain_call_a_candidate(tiny):
    queries = mixed_queries()
    fast = values_of(tiny.score(queries))
    alone = [values_of(tiny.score([query]))[0] for query in queries[:5]]
    np.testing.assert_allclose(fast, [plain(tiny, query) for query in queries], atol=2e-5)
    np.testing.assert_allclose(fast[:5], alone, atol=2e-5)


def test_many_scores_are_worked_out_by_the_kernel_that_saves_memory_to_the_same(tiny, monkeypatch):
    queries = mixed_queries()
    plainly = values_of(tiny.score(queries))
    monkeypatch.setattr(language, "_SCORES", 0)
    for kept in (tiny._pasts, tiny._plans._kept):
        kept.clear()
    np.testing.assert_allclose(values_of(tiny.score(queries)), plainly, atol=1e-5)


def test_a_batch_that_differs_in_its_pictures_alone_is_laid_out_once_and_others_anew(tiny, monkeypatch):
    made = rows._made
    laid_out: list[int] = []
    monkeypatch.setattr(rows, "_made", lambda batch, device: laid_out.append(len(batch)) or made(batch, device))
    tiny._plans._kept.clear()

    def batch(seed: int, tasks: list[str]) -> list[RewardQuery]:
        frames = [noise(seed + i) for i in range(3)]
        one = [RewardQuery(task, head, (frames[0],)) for task in tasks for head in ("progress", "completion")]
        return [*one, RewardQuery(tasks[0], "contrastive", (frames[1], frames[2]))]

    batches = [batch(0, TASKS[:2]), batch(10, TASKS[:2]), batch(20, TASKS[1::-1]), batch(30, TASKS[:2])]
    answers, count = [], []
    for queries in batches:
        answers.append(values_of(tiny.score(queries)))
        count.append(len(laid_out))
    assert count[0] == count[1] < count[2] == count[3]
    for queries, found in zip(batches, answers, strict=True):
        np.testing.assert_allclose(found, [plain(tiny, query) for query in queries], atol=2e-5)
    for number in range(20):
        tiny.score([RewardQuery(f"task {number}", "completion", (noise(number),))])
    assert len(tiny._plans._kept) == rows.Plans._KEPT


@pytest.mark.parametrize("deepstack", [[], [0, 2]])
def test_a_frame_of_the_last_call_is_not_encoded_again(tmp_path, monkeypatch, deepstack):
    monkeypatch.setitem(VISION, "deepstack_visual_indexes", deepstack)
    model = QwenRewardModel(Path(write_untrained(tmp_path)), device="cpu")
    sizes = []
    encode = qwen.encode
    monkeypatch.setattr(qwen, "encode", lambda *args: sizes.append(len(args[1])) or encode(*args))
    frames = [noise(seed) for seed in range(4)]
    queries = [RewardQuery(TASKS[0], "contrastive", pair) for pair in itertools.pairwise(frames)]
    queries.append(RewardQuery(TASKS[0], "contrastive", (frames[3], frames[0])))  # the first is long forgotten
    values = [values_of(model.score([query]))[0] for query in queries]
    assert sizes == [2, 1, 1, 1]
    np.testing.assert_allclose(values, [plain(model, query) for query in queries], atol=1e-3)
    assert np.std(values) > 1e-3


def test_a_model_with_deepstack_is_read_as_transformers_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(VISION, "deepstack_visual_indexes", [0, 2])
    deep = QwenRewardModel(Path(write_untrained(tmp_path)), device="cpu")
    queries = mixed_queries()
    expected = [plain(deep, query) for query in queries]
    assert np.std(expected[1::5]) > 1e-3
    np.testing.assert_allclose(values_of(deep.score(queries)), expected, atol=1e-3)  # big weights: float32 errors grow


def test_answers_carry_stamp_head_and_model(tiny):
    answer = tiny.score([RewardQuery(TASKS[0], "progress", (noise(7),))])[0]
    assert isinstance(answer, Reward)
    assert (answer.stamp_ns, answer.head, answer.model) == (7, "progress", "tiny") and answer.latency_s > 0


def test_frames_of_other_sizes_are_resized_by_the_processor(tiny):
    queries = [
        RewardQuery(TASKS[0], "contrastive", (noise(1, 480, 640), noise(2, 96, 96))),
        RewardQuery(TASKS[0], "completion", (noise(3, 64, 64),)),
    ]
    values = values_of(tiny.score(queries))
    np.testing.assert_allclose(values, [plain(tiny, query) for query in queries], atol=2e-5)


@pytest.mark.parametrize(
    ("repeat", "size", "mean", "std"),
    [(1, 16, [0.5] * 3, [0.5] * 3), (2, 16, [0.4, 0.5, 0.6], [0.5] * 3), (1, 12, [0.5] * 3, [0.2, 0.3, 0.4])],
)
def test_patches_are_those_of_the_image_processor(tiny, monkeypatch, repeat, size, mean, std):
    processor = tiny.processor.image_processor
    settings = {"temporal_patch_size": repeat, "patch_size": size, "image_mean": mean, "image_std": std}
    pixels = {"size": {"shortest_edge": 64 * 64, "longest_edge": 192 * 192}}
    for name, value in (settings | pixels).items():
        monkeypatch.setattr(processor, name, value)
    sizes = [(96, 96), (64, 160), (480, 640), (40, 40), (96, 96), (100, 100), (96, 144)]  # 100 x 100 becomes 96 x 96
    images = [noise(seed, *size).image for seed, size in enumerate(sizes)]
    for image, (grid, patches) in zip(images, patches_of(processor, images), strict=True):
        expected = processor(images=[image.copy()], return_tensors="pt")
        assert grid == tuple(expected["image_grid_thw"][0].tolist())
        torch.testing.assert_close(patches, expected["pixel_values"], atol=1e-5, rtol=0)


def test_candidates_of_several_tokens_are_scored_as_whole_sequences(tiny, monkeypatch):
    wordy = dataclasses.replace(
        HEADS["completion"], candidates=("not at all", "not yet, but yes", "1.5", "yes"), values=(0, 1, 2, 3)
    )
    monkeypatch.setitem(HEADS, "completion", wordy)
    monkeypatch.setattr(tiny, "_prompts", type(tiny._prompts)())
    query = RewardQuery(TASKS[0], "completion", (noise(1),))
    assert values_of(tiny.score([query]))[0] == pytest.approx(plain(tiny, query), abs=2e-5)


def test_generate_gives_the_value_of_the_generated_text_or_says_it_cannot_be_read(tiny):
    queries = mixed_queries()[:4]
    for query, answer in zip(queries, tiny.score(queries, "generate"), strict=True):
        head = HEADS[query.head]
        inputs = tiny.processor.apply_chat_template(
            head.messages(query), tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        output = tiny.model.generate(**inputs, max_new_tokens=head.max_new_tokens, do_sample=False)
        text = tiny.processor.decode(output[0, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        value = head.parse(text)
        if value is None:
            assert isinstance(answer, Unscored) and "cannot be read" in answer.reason
        else:
            assert isinstance(answer, Reward) and answer.value == value


def test_an_unreadable_generated_answer_is_unscored(tiny, monkeypatch):
    monkeypatch.setitem(
        HEADS, "progress", dataclasses.replace(HEADS["progress"], parse=lambda text: None, max_new_tokens=2)
    )
    answer = tiny.score([RewardQuery(TASKS[0], "progress", (noise(1),))], "generate")[0]
    assert isinstance(answer, Unscored) and answer.reason.startswith("the answer cannot be read: '")


def test_a_query_that_does_not_fit_its_head_is_unscored_and_the_others_are_answered(tiny):
    answers = tiny.score(
        [RewardQuery(TASKS[0], "contrastive", (noise(1),)), RewardQuery(TASKS[0], "progress", (noise(1),))]
    )
    assert isinstance(answers[0], Unscored) and "needs 2 frame(s), got 1" in answers[0].reason
    assert isinstance(answers[1], Reward)


def test_an_unknown_read_out_is_refused(tiny):
    with pytest.raises(ValueError, match="unknown readout 'guess'; choose one of forward, reason, generate"):
        tiny.score([], "guess")


# ---- adapters --------------------------------------------------------------------------------------------------------


def write_adapter(folder, heads, base=str(TINY_FOLDER), trained=True, visual=(), stem=False):
    """LoRA adapters on the tiny model, as training would write them; ``visual`` heads also save the vision tower."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3VLForConditionalGeneration

    for seed, head in enumerate(heads):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration.from_pretrained(TINY_FOLDER, dtype=torch.float32)
        saved = ["visual"] if head in visual else None
        targets = r".*language_model.*\.(q_proj|v_proj|down_proj)" + (r"|.*patch_embed\.proj" if stem else "")
        peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, modules_to_save=saved))
        with torch.no_grad():
            for name, parameter in peft.named_parameters():
                if "lora_B" in name and trained:
                    parameter.normal_(std=0.2)
                if "modules_to_save" in name and "proj" in name:
                    parameter.mul_(1.1)
        peft.save_pretrained(folder / head)
        config_file = folder / head / "adapter_config.json"
        config = json.loads(config_file.read_text())
        config["base_model_name_or_path"] = base
        if saved:
            config["modules_to_save"] = ["visual", "merger"]  # as the published progress adapter lists them
        config_file.write_text(json.dumps(config))
    return folder


def test_three_adapters_share_a_batch_and_answer_as_each_does_alone(tmp_path, tiny):
    model = QwenRewardModel(write_adapter(tmp_path, HEADS, visual=("progress",)), device="cpu")
    queries = mixed_queries()
    values = values_of(model.score(queries))
    np.testing.assert_allclose(values, [plain(model, query) for query in queries], atol=2e-5)
    for head in reversed(HEADS):  # a batch of one head is no mixed one
        own = [i for i, query in enumerate(queries) if query.head == head]
        alone = values_of(model.score([queries[i] for i in own]))
        np.testing.assert_allclose(alone, [values[i] for i in own], atol=2e-5)
    base = values_of(tiny.score(queries))
    assert np.abs(np.array(values) - base).max() > 1e-3


def test_an_adapter_on_the_vision_stem_is_not_passed_over(tmp_path, tiny):
    model = QwenRewardModel(write_adapter(tmp_path, ["all"], stem=True) / "all", device="cpu")
    queries = mixed_queries()[:5]
    np.testing.assert_allclose(values_of(model.score(queries)), [plain(model, query) for query in queries], atol=2e-5)


def test_a_head_without_an_adapter_is_unscored(tmp_path):
    model = QwenRewardModel(write_adapter(tmp_path, ["completion"]), device="cpu")
    answers = model.score([RewardQuery(TASKS[0], head, (noise(1),)) for head in ("completion", "progress")])
    assert isinstance(answers[0], Reward)
    assert (
        isinstance(answers[1], Unscored) and "no adapter for head 'progress', only for completion" in answers[1].reason
    )


def test_one_adapter_in_the_folder_itself_serves_every_head(tmp_path):
    model = QwenRewardModel(write_adapter(tmp_path, ["all"]) / "all", device="cpu")
    queries = mixed_queries()[:5]
    values = values_of(model.score(queries))
    np.testing.assert_allclose(values, [plain(model, query) for query in queries], atol=2e-5)


def test_an_adapter_whose_weights_have_no_effect_is_refused(tmp_path):
    folder = write_adapter(tmp_path, ["completion"], trained=False)
    with pytest.raises(ValueError, match="all-zero lora_B"):
        QwenRewardModel(folder, device="cpu")


def test_an_adapter_without_weights_is_refused_with_the_cure(tmp_path):
    folder = write_adapter(tmp_path, ["completion"])
    (folder / "completion" / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="hf download USC-PSI-Lab/LRM-models"):
        QwenRewardModel(folder, device="cpu")


def test_an_adapter_whose_base_is_not_here_names_both_and_the_cure(tmp_path):
    folder = write_adapter(tmp_path, ["completion"], base="Qwen/Qwen3-VL-8B-Instruct-missing")
    with pytest.raises(
        FileNotFoundError, match=r"completion' was trained on 'Qwen/Qwen3-VL-8B-Instruct-missing'.*hf download"
    ):
        QwenRewardModel(folder, device="cpu")


# ---- what is missing -------------------------------------------------------------------------------------------------


def test_a_folder_that_does_not_exist_is_named():
    with pytest.raises(FileNotFoundError, match=r"model folder '\./none' does not exist; use 'tiny'"):
        load_model("./none")


def test_a_name_that_is_not_in_the_cache_says_how_to_download_it():
    with pytest.raises(FileNotFoundError, match="hf download some/model --local-dir FOLDER"):
        load_model("some/model")


def test_a_folder_that_is_no_model_says_what_is_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither config.json nor .*adapter_config.json"):
        load_model(str(tmp_path))


def test_a_model_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="'llama' model; the reward heads need a 'qwen3_vl'"):
        load_model(str(tmp_path))


def test_a_download_without_weights_is_refused_with_the_cure(tmp_path):
    shutil.copy(TINY_FOLDER / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no \*.safetensors weights; the download is incomplete"):
        load_model(str(tmp_path))


def test_a_model_without_a_processor_is_refused_with_the_cure(tmp_path):
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        shutil.copy(TINY_FOLDER / name, tmp_path)
    with pytest.raises(FileNotFoundError, match="no usable processor"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("readout", ["forward", "generate"])
def test_a_task_with_special_tokens_is_text_and_one_that_is_too_long_is_named_and_spoils_no_other(tiny, readout):
    special = "put <|image_pad|> on the <|im_end|><|vision_start|> plate"
    frame = noise(1)
    queries = [RewardQuery(task, "completion", (frame,)) for task in (special, "put " * 4000, TASKS[0])]
    answers = tiny.score(queries, readout)
    refused = answers[1]
    assert isinstance(refused, Unscored) and "the model takes 2048: shorten the task text of 16000" in refused.reason
    others = [queries[0], queries[2]]
    alone = [tiny.score([query], readout)[0] for query in others]
    together = [answers[0], answers[2]]
    assert [type(answer) for answer in alone] == [type(answer) for answer in together]
    if readout == "forward":
        assert values_of(alone) == pytest.approx(values_of(together), abs=1e-5)
    text = HEADS["completion"].messages(queries[0])[0]["content"][0]["text"]
    known = tiny.processor.tokenizer.get_added_vocab()
    ids = tiny.processor.tokenizer(text)["input_ids"]
    assert not {known[token] for token in ("<|image_pad|>", "<|im_end|>", "<|vision_start|>")} & set(ids)
    assert text.replace("\u200b", "").count(special) == 1
