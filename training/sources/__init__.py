# SPDX-License-Identifier: Apache-2.0
"""Moved to ``lrm_ros.training.reward.data.sources``; its readers of LeRobot data sets are still found here."""
