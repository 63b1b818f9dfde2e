"""Data sets as `Bags`."""

from samil_lite.data.mnist import KEY_DIGITS, mnist_bags

__all__ = ["KEY_DIGITS", "mnist_bags"]
