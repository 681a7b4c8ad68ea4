# SPDX-License-Identifier: Apache-2.0
"""Metrics of one worker for Prometheus.

::

    families    every metric the worker counts: name, help, labels, buckets
    tally       adds observations up, and shows them as Prometheus reads them
    recorder    takes observations in any process of the worker; those of the pool's children travel to the main one
    gauges      what is looked up when somebody asks: containers, nodes, store, filesystems
    endpoint    the page over HTTP
    monitor     all of these together, in the worker's main process

One process counts. A child sends each observation when it is made, so a child that is killed takes nothing with it but
what it did not finish, one that is replaced leaves no file to clean up, and no count ever goes down before the worker's
own end. (prometheus_client's multiprocess mode keeps a file of counts for every child there ever was instead.)
"""
