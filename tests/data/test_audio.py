"""Spectra against SciPy's, mel bands against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from jmtl.data.audio import log_mel, mel_bands, power_spectra


@pytest.mark.parametrize(("window", "hop", "n"), [(256, 128, 1_000), (32, 10, 99)])
def test_power_spectra_are_scipys(window, hop, n):
    audio = np.random.default_rng(0).uniform(-1, 1, (2, n)).astype(np.float32)
    _, _, expected = signal.stft(
        audio, nperseg=window, noverlap=window - hop, boundary=None, padded=False
    )
    # SciPy divides by the sum of its Hann window, half the window's length.
    expected = np.abs(np.swapaxes(expected, 1, 2) * window / 2) ** 2
    actual = power_spectra(jnp.asarray(audio), window, hop)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_mel_bands_are_triangles_with_tips_even_in_mel():
    bands = mel_bands(40, 129, 8_000)
    mel = lambda f: 2595 * np.log10(1 + f / 700)
    spacing = mel(4_000) / 41
    f = np.linspace(0, 4_000, 129)
    for m in (0, 7, 39):
        corners = [700 * (10 ** (i * spacing / 2595) - 1) for i in (m, m + 1, m + 2)]
        expected = np.interp(f, corners, [0, 1, 0])
        np.testing.assert_allclose(bands[:, m], expected, atol=1e-6)
    # Between the first tip and the last, neighbours add up to 1.
    inside = (mel(f) > spacing) & (mel(f) < 40 * spacing)
    np.testing.assert_allclose(bands[inside].sum(1), 1, atol=1e-6)
    with pytest.raises(ValueError, match="200 mel bands are too narrow for 129 frequencies"):
        mel_bands(200, 129, 8_000)


def test_a_tone_is_loud_in_its_band_and_silence_is_the_floor():
    time = jnp.arange(1_024) / 8_000
    tone = jnp.stack([0.5 * jnp.sin(2 * jnp.pi * 1_000 * time), jnp.zeros_like(time)])
    loud, silent = jax.jit(lambda x: log_mel(x, 8_000, floor=1e-3))(tone)
    tips = 700 * (10 ** (np.arange(1, 41) * np.log10(1 + 4_000 / 700) / 41) - 1)
    nearest = np.abs(tips - 1_000).argmin()
    assert (np.asarray(loud).argmax(axis=1) == nearest).all()
    np.testing.assert_allclose(silent, np.log(1e-3), rtol=1e-5)
