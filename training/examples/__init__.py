# SPDX-License-Identifier: Apache-2.0
"""Keyframes on disk and the examples of the reward heads made of them."""
