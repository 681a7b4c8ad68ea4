# SPDX-License-Identifier: Apache-2.0
"""What tests are made with: real servers, real workers, an image builder, and what a test needs to run at all."""
