# SPDX-License-Identifier: Apache-2.0
"""`provisioner`: the six tasks, the cluster's state and a whole cluster in one terminal, for people.

::

    entry       the command group and its exit codes      exits      errors -> exit code, sentence and hint
    cluster     what commands talk to: Redis, Celery      answers    send a task by name and wait, showing progress
    verbs       provision, destroy, prune, recover, pull, verify
    run         a program in a rootfs                     run_*      its place, guard, signals; oci_runtime   crun, runc
    views       ps, nodes, lock, images, du, inspect      stored     what the local store holds, as values
    usage       what containers and images take of the disk, as values
    letters     dead-letters
    doctor      what is wrong with this node              doctor_*   its parts; findings   what they say
    output      JSON or tables                            tables     what people see
    up          up, redis                                 supervisor several programs, started and stopped in order
    demo        the main job end to end                   demo_*     its parts

Exit codes: 0 done; 1 the task failed; 2 the command line or a setting is wrong; 3 nobody answered (in time, or at all);
130 interrupted. `run` ends as its program does, or with 125.
"""

from worker.cli.entry import main

__all__ = ["main"]
