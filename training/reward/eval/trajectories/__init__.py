# SPDX-License-Identifier: Apache-2.0
"""Trajectories of policies on disk, in upstream's layout, and their scores."""
