"""Sound as JAX reads it: power spectra over time, and their logarithms in mel bands."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float32


def power_spectra(audio: Float[Array, "B N"], window: int, hop: int) -> Float[Array, "B T F"]:
    """Squared magnitudes of the Fourier transforms of overlapping frames, each under a Hann window.

    Args:
        audio: `[B, N]`, N at least `window`; samples after the last whole frame are not read.
        window: samples of a frame, even.
        hop: samples from one frame's first to the next one's.

    Returns:
        `[B, T, F]`: T = 1 + (N - window) // hop frames, F = window / 2 + 1 frequencies from 0 to
        half the sample rate.
    """
    starts = np.arange(0, audio.shape[-1] - window + 1, hop)
    hann = np.sin(np.pi * np.arange(window) / window) ** 2  # periodic
    frames = audio[:, starts[:, None] + np.arange(window)]
    spectra = jnp.fft.rfft(frames * hann.astype(np.float32)[None, None])
    return spectra.real**2 + spectra.imag**2


def mel_bands(bands: int, frequencies: int, rate: float) -> Float32[np.ndarray, "F M"]:
    """Triangles of height 1 over the frequencies, whose tips lie evenly on the mel scale.

    Each falls to 0 at the tips of its neighbours; the first begins at 0, the last ends at half the
    rate.

    Args:
        bands: M.
        frequencies: F, evenly from 0 to half the rate.
        rate: samples a second.

    Returns:
        `[F, M]`.

    Raises:
        ValueError: the bands are so many that one lies between two frequencies.

    References:
        O'Shaughnessy, *Speech Communication*, 1987: mel(f) = 2595 log10(1 + f / 700).
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    tips = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    f = np.linspace(0, rate / 2, frequencies)[:, None]
    low, middle, high = tips[:-2], tips[1:-1], tips[2:]
    found = np.maximum(np.minimum((f - low) / (middle - low), (high - f) / (high - middle)), 0)
    if not found.any(axis=0).all():
        raise ValueError(f"{bands} mel bands are too narrow for {frequencies} frequencies")
    return found.astype(np.float32)


def log_mel(
    audio: Float[Array, "B N"],
    rate: float,
    window: int = 256,
    hop: int = 128,
    bands: int = 40,
    floor: float = 1e-4,
) -> Float[Array, "B T M"]:
    """Logarithms of the power in mel bands over time.

    Args:
        audio: `[B, N]` in [-1, 1].
        rate: samples a second.
        window: samples of a frame.
        hop: samples between frames.
        bands: M.
        floor: added to the power; silence is its logarithm.

    Returns:
        `[B, T, M]`, see `power_spectra`.
    """
    power = power_spectra(audio, window, hop)
    bank = jnp.asarray(mel_bands(bands, power.shape[-1], rate))
    return jnp.log(jnp.matmul(power, bank, precision=lax.Precision.HIGHEST) + floor)
