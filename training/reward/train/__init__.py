# SPDX-License-Identifier: Apache-2.0
"""Training of reward models: LoRA heads of a Qwen3-VL, or the tiny one from scratch."""
