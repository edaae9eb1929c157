# SPDX-License-Identifier: Apache-2.0
"""Moved to ``lrm_ros.training.reward.data.sources.lerobot``; this line serves scripts that import it from here."""

from lrm_ros.training.reward.data.sources.lerobot import read_lerobot  # noqa: F401
