# SPDX-License-Identifier: Apache-2.0
"""Reports: statistics, tables, pages."""
