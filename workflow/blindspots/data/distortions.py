"""Distorted images and the measure of their distortion, for arrays (n, ...) of pixels in [0, 1]."""

import numpy as np


def distortion(originals: np.ndarray, distorted: np.ndarray) -> np.ndarray:
    """Compute the distortion √(Σ (x'_i - x_i)² / m) of each image (Section 4.2).

    Here m is the number of pixels of an image.

    Args:
        originals: The original images x, (n, ...), in [0, 1].
        distorted: The distorted images x', (n, ...).
    Returns:
        The distortions, (n,) float64, in units of the pixel range.
    """
    difference = distorted - originals
    return np.sqrt(np.square(difference).mean(axis=tuple(range(1, difference.ndim)), dtype=np.float64))


def amplify(originals: np.ndarray, distorted: np.ndarray, stddev: float, clip: bool) -> np.ndarray:
    """Compute x + stddev (x' - x) / ‖x' - x‖, so that the distortion becomes `stddev` (Section 4.2).

    The norm is the root mean square.
    An image without distortion stays as it is.

    Args:
        originals: The original images x, (n, ...), in [0, 1].
        distorted: The distorted images x', (n, ...).
        stddev: The new distortion, in units of the pixel range.
        clip: Whether to clip the result to [0, 1]. The distortion may then be less than `stddev`.
    Returns:
        The amplified images, (n, ...) float32.
    """
    size = distortion(originals, distorted)
    scale = np.divide(stddev, size, out=np.zeros_like(size), where=size > 0)
    scale = scale.reshape(-1, *[1] * (originals.ndim - 1)).astype(originals.dtype)
    return _finish(originals + scale * (distorted - originals), clip)


def add_noise(originals: np.ndarray, stddev: float, seed: int, clip: bool) -> np.ndarray:
    """Add Gaussian noise to every pixel.

    A seed gives the same noise at every standard deviation, apart from its scale.

    Args:
        originals: The original images, (n, ...), in [0, 1].
        stddev: The standard deviation of the noise, in units of the pixel range.
        seed: The seed of the noise.
        clip: Whether to clip the result to [0, 1].
    Returns:
        The noisy images, (n, ...) float32.
    """
    noise = np.random.default_rng(seed).standard_normal(originals.shape, dtype=np.float32)
    return _finish(originals + np.float32(stddev) * noise, clip)


def _finish(images: np.ndarray, clip: bool) -> np.ndarray:
    return (images.clip(0, 1) if clip else images).astype(np.float32, copy=False)
