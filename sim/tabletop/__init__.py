# SPDX-License-Identifier: Apache-2.0
"""Tabletop tasks with a random scene and task in every episode."""
