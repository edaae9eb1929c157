# SPDX-License-Identifier: Apache-2.0
"""Policies: demonstrations, data sets, judging, fine-tuning, evaluation."""
