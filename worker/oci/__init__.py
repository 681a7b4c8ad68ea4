# SPDX-License-Identifier: Apache-2.0
"""Value types of the OCI image and distribution specifications, of Docker's and of Appc's; no I/O.

Parse once at the edge (`Digest.parse`, `Reference.parse`, `Manifest.parse`), trust afterwards.
"""
