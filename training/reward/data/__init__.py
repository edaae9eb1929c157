# SPDX-License-Identifier: Apache-2.0
"""Labelled keyframes of data sets and simulators, on disk."""
