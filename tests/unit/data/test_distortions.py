"""Amplified and noisy images, and the measure of their distortion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspots.data import distortions

shapes = st.one_of(
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
)
stddevs = st.floats(1e-3, 2)
seeds = st.integers(0, 2**32 - 1)


def pairs(shape, seed):
    rng = np.random.default_rng(seed)
    return rng.random(shape, dtype=np.float32), rng.random(shape, dtype=np.float32)


def test_distortion_is_the_root_mean_square_over_pixels():
    originals = np.zeros((2, 2, 2), dtype=np.float32)
    distorted = np.array([[[3, 4], [0, 0]], [[1, 1], [1, 1]]], dtype=np.float32)
    assert distortions.distortion(originals, distorted).tolist() == [2.5, 1.0]  # √(25/4), √(4/4)


def test_distortion_of_small_differences_is_not_lost_to_single_precision():
    # Squares near 1e-14 summed in float32 around larger numbers
    # would be gone; the difference itself is exact here.
    originals = np.full((1, 1000), 0.5, dtype=np.float32)
    distorted = originals + np.float32(2**-23)
    assert distortions.distortion(originals, distorted) == pytest.approx(2**-23, rel=1e-9)


@given(shapes, seeds)
def test_distortion_is_symmetric_and_one_number_an_image(shape, seed):
    a, b = pairs(shape, seed)
    assert distortions.distortion(a, b).shape == shape[:1]
    assert np.allclose(distortions.distortion(a, b), distortions.distortion(b, a))


@given(shapes, seeds, stddevs)
def test_amplified_distortion_is_the_asked_one(shape, seed, stddev):
    originals, distorted = pairs(shape, seed)
    amplified = distortions.amplify(originals, distorted, stddev, clip=False)
    # Images are single precision: each pixel is off by up to 2^-24 of its size.
    assert distortions.distortion(originals, amplified) == pytest.approx(stddev, rel=1e-6, abs=1e-6)


@given(shapes, seeds, stddevs)
def test_amplifying_keeps_the_direction(shape, seed, stddev):
    originals, distorted = (images.reshape(shape[0], -1) for images in pairs(shape, seed))
    change = distortions.amplify(originals, distorted, stddev, clip=False) - originals
    wanted = distorted - originals
    cosine = (change * wanted).sum(1) / np.linalg.norm(change, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine == pytest.approx(1, abs=1e-4)


@given(shapes, seeds, stddevs, st.booleans())
def test_an_image_without_distortion_stays_as_it_is(shape, seed, stddev, clip):
    originals, distorted = pairs(shape, seed)
    distorted[0] = originals[0]
    amplified = distortions.amplify(originals, distorted, stddev, clip)
    assert np.array_equal(amplified[0], originals[0])


@given(shapes, seeds, stddevs)
def test_clipping_cuts_to_the_pixel_range_and_changes_nothing_else(shape, seed, stddev):
    originals, distorted = pairs(shape, seed)
    free = distortions.amplify(originals, distorted, stddev, clip=False)
    assert np.array_equal(distortions.amplify(originals, distorted, stddev, clip=True), free.clip(0, 1))


def test_without_clipping_pixels_may_leave_the_range():
    amplified = distortions.amplify(np.ones((1, 4)), np.array([[1, 1, 1, 0.5]]), 1.0, clip=False)
    assert amplified[0, 3] == pytest.approx(1 - 2)


@given(shapes, seeds, stddevs, seeds)
def test_noise_is_seeded_and_clipped_only_when_asked(shape, seed, stddev, noise_seed):
    originals, _ = pairs(shape, seed)
    noisy = distortions.add_noise(originals, stddev, noise_seed, clip=False)
    assert noisy.dtype == np.float32
    assert np.array_equal(noisy, distortions.add_noise(originals, stddev, noise_seed, clip=False))
    assert np.array_equal(distortions.add_noise(originals, stddev, noise_seed, clip=True), noisy.clip(0, 1))


def test_another_seed_gives_other_noise():
    originals = np.zeros((1, 50))
    assert not np.array_equal(
        distortions.add_noise(originals, 1, 0, False), distortions.add_noise(originals, 1, 1, False)
    )


def test_noise_is_gaussian_of_the_asked_deviation_and_differs_between_images():
    originals = np.full((20, 50, 50), 0.5)
    noise = distortions.add_noise(originals, 0.1, 3, clip=False) - originals
    # 50,000 values: the standard error of the mean is 0.1/√50000, that of the deviation 0.1/√100000.
    assert abs(noise.mean()) < 5 * 0.1 / 50000**0.5
    assert noise.std() == pytest.approx(0.1, abs=5 * 0.1 / 100000**0.5)
    # A Gaussian has 4.55 % beyond two deviations (a uniform distribution of this deviation has none).
    assert (np.abs(noise) > 0.2).mean() == pytest.approx(0.0455, abs=0.005)
    assert not np.allclose(noise[0], noise[1])
