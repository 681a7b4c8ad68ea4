# SPDX-License-Identifier: Apache-2.0
"""Who is measured: this project in each of its layer formats, and programs that do the same job.

Each runs privately: its own directories, its own daemon, nothing of the machine's.
"""
