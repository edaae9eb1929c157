# SPDX-License-Identifier: Apache-2.0
"""Refinement of a policy by PPO: the algorithm, the run, its node, and the comparison of runs."""
