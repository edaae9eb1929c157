# SPDX-License-Identifier: Apache-2.0
"""Build the tiny reward model: a stock Qwen3-VL of a few million parameters with its own tokenizer and processor.

The classes are transformers' own, so the tiny model takes the same path as the 8B one (chat template, processor,
forward, generate, LoRA). Only sizes differ. Every fixed piece of the reward prompts is one added token: a query is
then some 40 tokens instead of 400.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.qwen.folder import text_settings
from lrm_ros.types import Frame, RewardQuery
from lrm_ros.versions import processor_parts

IMAGE_SIZE = 96
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# What Qwen3-VL's own template writes for user and assistant turns of text and images.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part.type == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- else %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

# Qwen's pre-tokenisation, which keeps an answer's quotes apart from its word.
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def instructions() -> list[str]:
    """Return the instructions of all tasks the model is trained on; those held out give no words to the tokenizer."""
    from lrm_ros.sim.maniskill.tasks import TASKS as MANISKILL
    from lrm_ros.sim.metaworld.tasks import TASKS as METAWORLD
    from lrm_ros.sim.tabletop.fixture_scenes import FAMILIES as FIXTURES
    from lrm_ros.sim.tabletop.fixture_scenes import asked_of_fixtures, draw_fixture_scene
    from lrm_ros.sim.tabletop.goals import asked as tabletop_texts
    from lrm_ros.sim.tabletop.scenes import FAMILIES, draw_scene
    from lrm_ros.sim.twin.instructions import texts as twin_texts
    from lrm_ros.sim.twin.toys import ANIMALS, COLOURS, instruction
    from lrm_ros.training.reward.data.generate import HELD_OUT

    texts = [instruction(colour, animal) for colour in COLOURS for animal in ANIMALS]
    texts += twin_texts()
    for room, tasks in (("maniskill", MANISKILL), ("metaworld", METAWORLD)):
        for name, task in tasks.items():
            if f"{room}/{name}" not in HELD_OUT:
                texts += [text.replace("{colour}", colour) for text in task.instructions for colour in COLOURS]
    for family in FAMILIES:
        for seed in range(200):
            scene = draw_scene(family, np.random.default_rng([seed, 2]))
            asked = tabletop_texts(scene, np.random.default_rng([seed, 5]))
            texts += [text for one, _ in asked if one.kind != "nonsense" for text in one.wordings]
    for family in FIXTURES:
        for seed in range(100):
            fixtures = draw_fixture_scene(family, np.random.default_rng([seed, 2]))
            about = asked_of_fixtures(fixtures, np.random.default_rng([seed, 5]))
            texts += [text for one, _ in about if one.kind != "nonsense" for text in one.wordings]
    return texts


def prompt_phrases() -> list[str]:
    """Return every fixed piece of text in the prompts and answers of the three heads, longest first."""
    mark = "\x00"
    frame = Frame(0, "front", np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8))
    queries = [
        RewardQuery(mark, "contrastive", (frame, frame)),
        RewardQuery(mark, "completion", (frame,)),
        *(RewardQuery(mark, "progress", (frame,) * n, goal) for n in (1, 2) for goal in (None, frame)),
    ]
    phrases = {"user\n", "assistant\n"}
    for query in queries:
        for part in HEADS[query.head].messages(query)[0]["content"]:
            if part["type"] == "text":
                phrases.update(piece for piece in part["text"].split(mark) if piece.strip(" ."))
    for head in HEADS.values():
        phrases.update((head.prefix, head.suffix))
    return sorted(phrases, key=lambda phrase: (-len(phrase), phrase))


def build_processor(size: str = "tiny") -> Any:
    """Return a Qwen3VLProcessor with a small byte-level BPE tokenizer for a size of ``SIZES``, deterministic."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen3VLProcessor, Qwen3VLVideoProcessor

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    answers = [head.answer(value) for head in HEADS.values() for value in head.values]
    corpus = answers * 8 + instructions()
    trainer = trainers.BpeTrainer(
        vocab_size=640, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer_class, image_processor_class = processor_parts()
    fast = tokenizer_class(
        tokenizer_object=tokenizer,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        padding_side="left",
        model_max_length=2048,
    )
    phrases = prompt_phrases() + list(HEADS["progress"].candidates)
    fast.add_tokens([AddedToken(phrase, normalized=False, special=False) for phrase in phrases])
    pixels = IMAGE_SIZE * IMAGE_SIZE
    vision = SIZES[size][0]
    sizes = {"patch_size": vision["patch_size"], "merge_size": vision["spatial_merge_size"], "temporal_patch_size": 1}
    edges = {"shortest_edge": pixels, "longest_edge": pixels}
    normal = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    return Qwen3VLProcessor(
        image_processor=image_processor_class(size=edges, **sizes, **normal),
        tokenizer=fast,
        video_processor=Qwen3VLVideoProcessor(size=edges, **sizes, **normal),
        chat_template=CHAT_TEMPLATE,
    )


VISION: dict[str, Any] = {  # of the size "tiny": 36 visual tokens of 16 x 16 pixels
    "depth": 4,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_heads": 6,
    "patch_size": 16,
    "spatial_merge_size": 1,
    "temporal_patch_size": 1,
    "num_position_embeddings": 36,
    "deepstack_visual_indexes": [],
    "out_hidden_size": 128,
    "hidden_act": "gelu_pytorch_tanh",
}
TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rope_theta": 1e4,
    "rope_scaling": {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True},
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


# name -> vision and text settings; "small": 36 visual tokens, each of four patches of 8 x 8 pixels
SIZES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tiny": (VISION, TEXT),
    "small": (
        {**VISION, "patch_size": 8, "spatial_merge_size": 2, "num_position_embeddings": 144, "out_hidden_size": 192},
        {
            **TEXT,
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "intermediate_size": 512,
            "num_attention_heads": 6,
        },
    ),
}


def build_model(processor: Any, seed: int = 0, size: str = "tiny") -> Any:
    """Return an untrained Qwen3VLForConditionalGeneration of a size of ``SIZES`` that fits ``processor``."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = processor.tokenizer
    token_id = tokenizer.convert_tokens_to_ids
    vocabulary = (len(tokenizer) + 31) // 32 * 32
    config = Qwen3VLConfig(
        vision_config=dict(SIZES[size][0]),
        text_config={
            **text_settings(SIZES[size][1], Path(__file__)),
            "vocab_size": vocabulary,
            "eos_token_id": token_id("<|im_end|>"),
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = token_id("<|im_end|>")
    model.generation_config.pad_token_id = token_id("<|endoftext|>")
    model.generation_config.do_sample = False
    return model
