# SPDX-License-Identifier: Apache-2.0
"""How the benchmarks measure: directories of their own, processes, figures, tables, plots."""
