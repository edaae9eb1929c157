# SPDX-License-Identifier: Apache-2.0
"""The tiny reward model: its data, its training and its card."""
