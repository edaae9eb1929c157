# SPDX-License-Identifier: Apache-2.0
"""Programs that collect, judge, train and evaluate; they import lrm_ros and sim, never the reverse."""
