# SPDX-License-Identifier: Apache-2.0
"""What memory an image's entries cost: `python -m tests.benchmarks.memory`.

Each row is a process of its own that builds one EROFS layer and merges it.
"""

import argparse

from rich.table import Table

from tests.benchmarks.measuring import scratch
from tests.benchmarks.measuring.figures import wide_console
from tests.support.memory import peaks_of
from worker.settings import GIB, MIB


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[36_000, 100_000, 400_000])
    arguments = parser.parse_args()
    table = Table("entries", "MB before", "MB at the peak of building", "and of merging", "bytes an entry")
    for entries in arguments.entries:
        with scratch.scratch("memory") as directory:
            peaks = peaks_of(directory, layers=1, entries=entries, max_index_bytes=GIB)
        megabytes = (f"{peak / MIB:.0f}" for peak in (peaks.before, peaks.built, peaks.merged))
        table.add_row(f"{entries:,}", *megabytes, f"{(peaks.merged - peaks.before) / entries:.0f}")
    wide_console().print(table)


if __name__ == "__main__":
    scratch.run(main)
