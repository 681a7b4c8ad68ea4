# SPDX-License-Identifier: Apache-2.0
"""A client of registries: distribution-spec v1.1 and Docker's token authentication, over urllib3.

`client` asks for manifests and blobs; `session` answers challenges; `channel` follows redirects, one request at a time;
`blobs` resumes broken transfers; `ranges` brings a large blob over several connections. What may be decided without a
network is decided in pure functions: `endpoints` (where a request may go), `challenge` (what a registry wants),
`retries` (whether and when to try again), `pacing` (how many connections help).
"""
