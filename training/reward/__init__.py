# SPDX-License-Identifier: Apache-2.0
"""Reward models: data, training, evaluation."""
