# SPDX-License-Identifier: Apache-2.0
"""The images that are measured: built from what this machine and its package mirrors have, kept by a registry."""

from tests.benchmarks.images.recipes import RECIPES, Recipe
from tests.benchmarks.images.shelf import Published, Shelf, default_image_dir, opened_shelf

__all__ = ["RECIPES", "Published", "Recipe", "Shelf", "default_image_dir", "opened_shelf"]
