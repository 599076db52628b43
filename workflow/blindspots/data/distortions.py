"""Distorted images and the measure of their distortion: (n, ...) arrays of pixels in [0, 1]."""

import numpy as np


def distortion(originals: np.ndarray, distorted: np.ndarray) -> np.ndarray:
    """√(Σ (x'_i - x_i)² / m) of each image (Section 4.2): (n,) float64, in units of the pixel range."""
    difference = distorted - originals
    return np.sqrt(np.square(difference).mean(axis=tuple(range(1, difference.ndim)), dtype=np.float64))


def amplify(originals: np.ndarray, distorted: np.ndarray, stddev: float, clip: bool) -> np.ndarray:
    """x + stddev (x' - x) / ‖x' - x‖, with the root mean square as the norm, so that the distortion becomes `stddev`.

    An image without distortion stays as it is. With `clip` the result is cut to [0, 1] and its distortion may be less.
    """
    size = distortion(originals, distorted)
    scale = np.divide(stddev, size, out=np.zeros_like(size), where=size > 0)
    scale = scale.reshape(-1, *[1] * (originals.ndim - 1)).astype(originals.dtype)
    return _finish(originals + scale * (distorted - originals), clip)


def add_noise(originals: np.ndarray, stddev: float, seed: int, clip: bool) -> np.ndarray:
    """x + Gaussian noise of the given standard deviation in every pixel.

    A seed gives the same noise at every standard deviation, only larger or smaller.
    """
    noise = np.random.default_rng(seed).standard_normal(originals.shape, dtype=np.float32)
    return _finish(originals + np.float32(stddev) * noise, clip)


def _finish(images: np.ndarray, clip: bool) -> np.ndarray:
    return (images.clip(0, 1) if clip else images).astype(np.float32, copy=False)
