"""Backbones: pretrained classifiers, and how images are made ready for them."""

from recast_core.backbones.load import DEFAULT_BACKBONE, PACKAGED, Backbone, load_backbone
from recast_core.backbones.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess

__all__ = [
    "DEFAULT_BACKBONE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PACKAGED",
    "Backbone",
    "Preprocess",
    "load_backbone",
]
