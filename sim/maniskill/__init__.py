# SPDX-License-Identifier: Apache-2.0
"""ManiSkill's own tasks as worlds, with scripted experts and progress from the state."""
