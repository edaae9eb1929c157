# SPDX-License-Identifier: Apache-2.0
"""ManiSkill tasks of the twin."""
