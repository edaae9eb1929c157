# SPDX-License-Identifier: Apache-2.0
"""A Qwen3-VL in this process: loading, its fast vision tower and language model, and the answers of the heads."""
