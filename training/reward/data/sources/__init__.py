# SPDX-License-Identifier: Apache-2.0
"""One small reader a data format; all give the same kind of episode (``sources.episode``)."""
