"""Simulated breast scans: seed + diagnosis -> grey image, lesion mask. No patient, so free to show, ship and test on.

    breast (layers, ligaments) + lesion --> echogenicity, specular reflectors, attenuation     a `Medium`
    Medium --attenuate, scatter, convolve, detect, compress--> grey (height, width) uint8      B-mode

The image formation is the linear convolution model of Field II (Jensen 1996) at baseband; what a benign and a
malignant mass look like follows Stavros 1995; sizes, places and greys were measured on the BUSI scans. It is a
stand-in for looking and testing, never for training or for numbers about patients.

References:
    Jensen, "Field: a program for simulating ultrasound systems", Med Biol Eng Comput 34 (1996) 351-353.
    Wagner et al., "Statistics of speckle in ultrasound B-scans", IEEE Trans Sonics Ultrason 30 (1983) 156-163,
        doi:10.1109/T-SU.1983.31404.
    Stavros et al., "Solid breast nodules: use of sonography to distinguish between benign and malignant lesions",
        Radiology 196 (1995) 123-134, doi:10.1148/radiology.196.1.7784555.
    Al-Dhabyani et al., "Dataset of breast ultrasound images" (BUSI), Data in Brief 2020,
        doi:10.1016/j.dib.2019.104863.
"""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.random import Generator, SeedSequence
from numpy.typing import ArrayLike, NDArray

from busi_core.imaging.encode import encode_png
from busi_core.types import Diagnosis, Grey, Mask

Field: TypeAlias = NDArray[np.float32]  # (height, width), one number for each pixel
Echo: TypeAlias = NDArray[np.float32]  # (height, width, 2), real and imaginary part of the demodulated echo

MIN_SIDE_PX = 64  # below it the layers are thinner than a pixel
REFERENCE_HEIGHT_PX = 448  # the speckle sizes below are in pixels of an image this high
FREQUENCY_MHZ = 10.0  # a linear breast probe
VIEW_DEPTH_CM = 4.0

# Measured on BUSI (60 images of each class, seed 0, resized to 560 x 448).
AXIAL_SIGMA_PX = 1.25  # finest speckle 2.8 px high (full width at half maximum of the autocorrelation), 2.355 sigma
LATERAL_SIGMAS_PX = (2.6, 2.3, 3.4)  # near, at the focus, far: finest speckle 6 to 8 px wide
COMPOUND_ANGLES = 8  # local standard deviation of 9 to 18 greys; one angle at 50 dB would show 28
DYNAMIC_RANGE_DB = (43.0, 56.0)

SKIN = 0.025  # its thickness as a share of the image: 1 mm
# Lobules, ducts, strands, fibres and their breaks; (down, across), shares of the image.
TEXTURE_GRAINS = ((0.06, 0.12), (0.026, 0.05), (0.018, 0.13), (0.03, 0.25), (0.025, 0.10))


@dataclass(frozen=True)
class LesionSigns:
    """How one class of lesion is drawn; a range is (lowest, highest) of a uniform or clipped draw.

    Attributes:
        area: Median share of the image; drawn log-normal.
        area_spread: Standard deviation of its logarithm.
        area_range: Clipped to this.
        aspect: Median height over width; log-normal with `aspect_spread`, clipped to `aspect_range`.
        depth: Centre, as a share of the height.
        roughness: Standard deviation of each angular term of the contour.
        spikes: How many, from 0.
        spike_length: As a share of the radius.
        edge_px: Blur of the margin, at the reference height.
        contrast_db: Echogenicity inside relative to the tissue just around.
        path_db: Two-way level below the lesion relative to beside it: + enhancement, - shadow.
        rim_db: Brightness of the rim: capsule (benign) or halo (malignant).
        rim_px: Its width, at the reference height.
        texture_db: Unevenness inside.
    """

    area: float
    area_spread: float
    area_range: tuple[float, float]
    aspect: float
    aspect_spread: float
    aspect_range: tuple[float, float]
    depth: tuple[float, float]
    roughness: float
    spikes: tuple[int, int]
    spike_length: tuple[float, float]
    edge_px: tuple[float, float]
    contrast_db: tuple[float, float]
    path_db: tuple[float, float]
    rim_db: tuple[float, float]
    rim_px: tuple[float, float]
    texture_db: float


# Signs: Stavros 1995. Numbers: measured on BUSI, median (5th to 95th percentile), unless stated otherwise.
SIGNS = {
    Diagnosis.BENIGN: LesionSigns(
        area=0.035,  # 0.03 (0.01 to 0.25)
        area_spread=0.75,
        area_range=(0.012, 0.22),
        aspect=0.56,  # 0.56 (0.30 to 0.85)
        aspect_spread=0.25,
        aspect_range=(0.32, 0.85),
        depth=(0.22, 0.42),  # 0.30 (0.17 to 0.47)
        roughness=0.035,  # circularity 0.74 (0.51 to 0.85)
        spikes=(0, 0),
        spike_length=(0.0, 0.0),
        edge_px=(0.6, 1.4),
        contrast_db=(-24.0, -8.0),  # grey 58 (10 to 124) inside, 129 (68 to 182) around
        path_db=(3.0, 13.0),  # below minus beside: 25 greys (-18 to 97)
        rim_db=(3.0, 7.0),
        rim_px=(1.0, 2.0),
        texture_db=3.0,
    ),
    Diagnosis.MALIGNANT: LesionSigns(
        area=0.12,  # 0.14 (0.03 to 0.40)
        area_spread=0.5,
        area_range=(0.04, 0.30),
        aspect=0.80,  # 0.74 (0.52 to 1.07): a little taller here, towards the sign
        aspect_spread=0.20,
        aspect_range=(0.55, 1.25),
        depth=(0.32, 0.48),  # 0.40 (0.22 to 0.53)
        roughness=0.07,  # circularity 0.55 (0.38 to 0.77)
        spikes=(4, 9),
        spike_length=(0.12, 0.40),
        edge_px=(2.0, 4.5),
        contrast_db=(-11.0, -5.0),  # grey 58 (19 to 105) inside, 108 (60 to 148) around
        path_db=(-11.0, -3.5),  # below minus beside: -1 grey (-62 to 70), as BUSI masks often take in the shadow
        rim_db=(3.0, 6.0),
        rim_px=(7.0, 16.0),
        texture_db=4.0,
    ),
}


@dataclass(frozen=True, eq=False)
class SimulatedScan:
    """One simulated scan and the truth about it.

    Attributes:
        grey: (height, width) uint8.
        mask: (height, width) bool, True inside the lesion; all False for a normal breast.
        diagnosis: What was simulated.
        seed: What it was drawn from.
    """

    grey: Grey
    mask: Mask
    diagnosis: Diagnosis
    seed: int

    def __post_init__(self) -> None:
        if self.grey.dtype != np.uint8 or self.grey.ndim != 2:
            raise ValueError(f"grey must be (height, width) uint8, got {self.grey.shape} {self.grey.dtype}")
        if self.mask.dtype != np.bool_ or self.mask.shape != self.grey.shape:
            raise ValueError(f"mask must be {self.grey.shape} bool, got {self.mask.shape} {self.mask.dtype}")
        if bool(self.mask.any()) == (self.diagnosis is Diagnosis.NORMAL):
            raise ValueError(f"a {self.diagnosis} scan has {int(self.mask.sum())} lesion pixels")

    def png(self) -> bytes:
        """The image as an 8-bit grey PNG file."""
        return encode_png(self.grey)


@dataclass(frozen=True, eq=False)
class Medium:
    """What the sound meets, pixel by pixel.

    Attributes:
        echogenicity_db: Backscatter relative to subcutaneous fat, dB.
        specular: Coherent reflection of surfaces square to the beam, relative to the scatter there; 0 and up.
        excess_attenuation: What the time-gain compensation leaves uncorrected, dB/cm/MHz, one way; may be negative.
    """

    echogenicity_db: Field
    specular: Field
    excess_attenuation: Field


def simulate_scan(diagnosis: Diagnosis, *, seed: int, height: int = 448, width: int = 560) -> SimulatedScan:
    """Simulate one B-mode scan of a breast.

    The same arguments give the same pixels on one machine; on another, rounding inside OpenCV may move a pixel
    by one grey. The same seed with another diagnosis is the same breast with another lesion or none.

    Args:
        diagnosis: What the scan shows; NORMAL has no lesion.
        seed: 0 or more.
        height: Pixels, at least 64.
        width: Pixels, at least 64.
    """
    if min(height, width) < MIN_SIDE_PX:
        raise ValueError(f"height and width must be at least {MIN_SIDE_PX}, got {height} x {width}")
    breast_rng, lesion_rng, speckle_rng = (np.random.default_rng(child) for child in SeedSequence(seed).spawn(3))
    medium = draw_breast(breast_rng, height, width)
    mask: Mask = np.zeros((height, width), np.bool_)
    if diagnosis is not Diagnosis.NORMAL:
        signs = SIGNS[diagnosis]
        mask = draw_contour(signs, lesion_rng, height, width)
        medium = insert_lesion(medium, mask, signs, lesion_rng)
    return SimulatedScan(image_medium(medium, speckle_rng), mask, diagnosis, seed)


# ---- What the sound meets ------------------------------------------------------------------------------------


def draw_breast(rng: Generator, height: int, width: int) -> Medium:
    """A breast without a lesion: skin, fat with ligaments, gland, fascia, muscle, from the top down."""
    depth = _bent_depth(rng, height, width)
    fat_ends = rng.uniform(0.10, 0.24) + 0.045 * np.abs(_smooth_field(rng, height, width, grain=(9.0, 0.3)))
    gland_ends = fat_ends + rng.uniform(0.25, 0.5) + 0.025 * _smooth_field(rng, height, width, grain=(9.0, 0.4))
    below_skin = _step(depth - SKIN, 0.004)
    below_fat, below_gland = _step(depth - fat_ends, 0.006), _step(depth - gland_ends, 0.02)
    fat, gland, muscle = below_skin * (1 - below_fat), below_fat * (1 - below_gland), below_gland

    lobules, ducts, strands, fibres, breaks = (
        _follow(_smooth_field(rng, height, width, grain=grain), depth) for grain in TEXTURE_GRAINS
    )
    fibres = _ridge(fibres, 1.8 * height / REFERENCE_HEIGHT_PX) * _step(breaks - rng.uniform(0.1, 0.7), 0.2)
    septa = _ridge(_smooth_field(rng, height, width, grain=(0.09, 0.25)), 1.5 * height / REFERENCE_HEIGHT_PX)
    gaps = _step(_smooth_field(rng, height, width, grain=(0.10, 0.2)), 0.2)
    surfaces = septa * gaps * (fat + 0.4 * gland + 0.2 * muscle) + fibres * (0.2 * fat + 0.6 * gland + 0.8 * muscle)
    for border, strength in ((SKIN, 0.6), (SKIN + 0.012, 0.6 * gaps), (fat_ends, 1.2 * gaps), (gland_ends, gaps)):
        surfaces += strength * _layer_border(depth - border)
    surfaces = np.minimum(surfaces, 1.4)

    echo_db = 5 * (1 - below_skin) + fat * (lobules + 0.7 * strands)
    echo_db += gland * (rng.uniform(4, 11) + 2 * lobules + rng.uniform(1.5, 4.5) * np.tanh(1.5 * ducts))
    echo_db += muscle * (rng.uniform(-4, 2) + 1.5 * lobules + 1.2 * ducts)
    echo_db += rng.uniform(1.5, 3.5) * strands * (gland + muscle) + 11 * surfaces
    shade = 1 + 0.4 * _smooth_field(rng, height, width, grain=(0.5, 0.16))
    attenuation = _step(depth - 0.15, 0.06) * rng.uniform(0.15, 0.45) * shade
    return Medium(_f32(echo_db), _f32(0.6 * surfaces), _f32(attenuation))


def draw_contour(signs: LesionSigns, rng: Generator, height: int, width: int) -> Mask:
    """The outline of a lesion, filled: an ellipse, an angular random series, and spikes (Stavros 1995)."""
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    radius = np.ones_like(angle)
    for order in range(2, 9):
        radius += rng.normal(0, signs.roughness * (2 / order) ** 0.5) * np.cos(
            order * angle + rng.uniform(0, 2 * np.pi)
        )
    for _ in range(rng.integers(*signs.spikes, endpoint=True)):
        turn = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi))))
        radius += rng.uniform(*signs.spike_length) * np.exp(-(np.abs(turn / rng.uniform(0.08, 0.2)) ** 1.5))

    aspect = np.clip(signs.aspect * np.exp(rng.normal(0, signs.aspect_spread)), *signs.aspect_range)
    area = np.clip(signs.area * np.exp(rng.normal(0, signs.area_spread)), *signs.area_range) * height * width
    half_width = (area / (np.pi * aspect)) ** 0.5 / (radius**2).mean() ** 0.5
    tilt = rng.uniform(-0.25, 0.25) * (1 - min(aspect, 1.0)) * 2
    across, down = half_width * radius * np.cos(angle), aspect * half_width * radius * np.sin(angle)
    across, down = across * np.cos(tilt) - down * np.sin(tilt), across * np.sin(tilt) + down * np.cos(tilt)

    column = _keep_inside(width * np.clip(rng.normal(0.47, 0.12), 0.2, 0.8) + across, 0.03 * width, 0.97 * width)
    row = _keep_inside(height * rng.uniform(*signs.depth) + down, 0.07 * height, 0.93 * height)
    filled = np.zeros((height, width), np.uint8)
    cv2.fillPoly(filled, [np.rint(np.stack([column, row], axis=1)).astype(np.int32)], 1)
    return filled.astype(np.bool_)


def insert_lesion(medium: Medium, mask: Mask, signs: LesionSigns, rng: Generator) -> Medium:
    """Put a lesion into a breast: darker inside, a bright rim, and its own attenuation (Stavros 1995).

    The attenuation is chosen so that the sound through the thickest part of the lesion comes back `path_db`
    stronger (fluid or soft solid: enhancement) or weaker (fibrous tumour: shadow) than beside it.
    """
    height, width = mask.shape
    scale = height / REFERENCE_HEIGHT_PX
    inside = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(*signs.edge_px) * scale)
    outside_px = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    rim = np.exp(-outside_px / (rng.uniform(*signs.rim_px) * scale)) * (1 - inside)
    patchy = 1 + 0.5 * _smooth_field(rng, height, width, grain=(0.12, 0.12))

    around_db = float(medium.echogenicity_db[(outside_px > 0) & (outside_px < 25 * scale)].mean())
    uneven_db = signs.texture_db * np.tanh(_smooth_field(rng, height, width, grain=(0.035, 0.06)))
    lesion_db = around_db + rng.uniform(*signs.contrast_db) + uneven_db
    echo_db = medium.echogenicity_db * (1 - inside) + lesion_db * inside + rng.uniform(*signs.rim_db) * patchy * rim

    thickness_cm = mask.sum(axis=0).max() * VIEW_DEPTH_CM / height
    lesion_attenuation = -rng.uniform(*signs.path_db) / (2 * FREQUENCY_MHZ * thickness_cm)
    attenuation = medium.excess_attenuation + inside * lesion_attenuation
    return Medium(_f32(echo_db), _f32(medium.specular * (1 - inside)), _f32(attenuation))


# ---- How it becomes an image ---------------------------------------------------------------------------------


def image_medium(medium: Medium, rng: Generator) -> Grey:
    """B-mode of a medium: attenuate, scatter and convolve, detect, compound, compress."""
    level_db = medium.echogenicity_db - path_loss_db(medium.excess_attenuation)
    amplitude = np.power(10, level_db / 20, dtype=np.float32)
    envelope = speckle_envelope(amplitude, medium.specular, rng, angles=COMPOUND_ANGLES)
    return log_compress(envelope, range_db=rng.uniform(*DYNAMIC_RANGE_DB), gain_db=rng.normal(0, 2.5))


def path_loss_db(excess_attenuation: Field) -> Field:
    """Two-way loss down to each pixel: 2 x frequency x the integral of attenuation along the beam, dB."""
    row_cm = VIEW_DEPTH_CM / excess_attenuation.shape[0]
    return _f32(2 * FREQUENCY_MHZ * row_cm * np.cumsum(excess_attenuation, axis=0))


def speckle_envelope(amplitude: Field, specular: Field, rng: Generator, *, angles: int) -> Field:
    """Detected echo of random scatterers under the point-spread function, the mean over beam angles.

    Many scatterers in a resolution cell make the demodulated echo circular complex Gaussian, so its envelope is
    Rayleigh with mean / std 1.91 for one angle (Wagner 1983), and Rice where a surface adds a constant. Averaging
    angles, with speckle taken as independent between them, is spatial compounding (Entrekin et al., Semin
    Ultrasound CT MR 22 (2001) 50-64).
    """
    surface = np.dstack([specular, np.zeros_like(specular)])
    total = np.zeros_like(amplitude)
    for _ in range(angles):
        scatterers = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32) + surface
        echo = convolve_with_pulse(scatterers * amplitude[..., None])
        total += cv2.magnitude(echo[..., 0], echo[..., 1])
    return _f32(total / angles)


def convolve_with_pulse(scatterers: Echo) -> Echo:
    """Apply the point-spread function: a Gaussian pulse down, a Gaussian beam across that is narrowest at the focus.

    The pulse's carrier is left out, as demodulation removes it and complex white noise does not feel it. Kernels
    have unit energy, so that homogeneous tissue keeps its level at every depth.
    """
    height = scatterers.shape[0]
    scale = height / REFERENCE_HEIGHT_PX
    pulse = _unit_energy_gaussian(AXIAL_SIGMA_PX * scale)
    echo = np.zeros_like(scatterers)
    place = np.linspace(0, len(LATERAL_SIGMAS_PX) - 1, height)  # which beam width rules at this row
    for number, sigma_px in enumerate(LATERAL_SIGMAS_PX):
        weight = _f32(np.clip(1 - np.abs(place - number), 0, 1))[:, None, None]
        echo += weight * cv2.sepFilter2D(scatterers, -1, _unit_energy_gaussian(sigma_px * scale), pulse)
    return echo


def log_compress(envelope: Field, *, range_db: float, gain_db: float) -> Grey:
    """Envelope -> grey: `range_db` decibels over 256 greys, subcutaneous fat at grey 110 without gain."""
    floor = np.float32(10 ** (-20 / 20))  # electronic noise
    level_db = 20 * np.log10(np.hypot(envelope, floor) / 1.25) + gain_db  # 1.25: mean of a Rayleigh envelope
    return np.clip(np.rint(110 + 255 * level_db / range_db), 0, 255).astype(np.uint8)


# ---- Random shapes -------------------------------------------------------------------------------------------


def _smooth_field(rng: Generator, height: int, width: int, *, grain: tuple[float, float]) -> Field:
    """Smooth Gaussian noise, about unit variance; grain is its size (down, across) as a share of the image."""
    cells = [int(np.ceil(1 / share)) + 1 for share in grain]
    coarse = rng.standard_normal(cells).astype(np.float32)
    return _f32(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * 1.3)


def _bent_depth(rng: Generator, height: int, width: int) -> Field:
    """Depth in the breast, 0 at the probe to about 1, of each pixel: the layers bend and tilt, the skin does not."""
    row = np.linspace(0, 1, height)[:, None]
    column = np.linspace(-0.5, 0.5, width)[None, :]
    bend = 0.022 * _smooth_field(rng, height, width, grain=(0.6, 0.4)) + rng.uniform(-0.15, 0.15) * column
    return _f32(row + bend * np.minimum(row / 0.3, 1))


def _follow(flat: Field, depth: Field) -> Field:
    """Bend a texture drawn in a flat breast along its layers."""
    height, width = depth.shape
    columns = np.tile(np.arange(width, dtype=np.float32), (height, 1))
    return _f32(cv2.remap(flat, columns, depth * height, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def _ridge(field: Field, half_width_px: float) -> Field:
    """Thin curves along the zeros of a field, brightest where they lie square to the beam; 0 to 1."""
    down, across = cv2.Sobel(field, -1, 0, 1, scale=1 / 8), cv2.Sobel(field, -1, 1, 0, scale=1 / 8)
    slope = np.hypot(down, across) + 1e-6
    return _f32(np.exp(-((field / slope / half_width_px) ** 2)) * (down / slope) ** 2)


def _layer_border(height_above: Field) -> Field:
    """The line between two layers, fading where it leans away from the beam; 0 to 1."""
    lean = cv2.Sobel(_f32(height_above), -1, 1, 0, scale=1 / 8) * height_above.shape[0]
    return _f32(np.exp(-((height_above / 0.004) ** 2)) / (1 + (3 * lean) ** 2))


def _step(value: NDArray[np.floating], softness: float) -> Field:
    """0 to 1 as value goes from below to above 0."""
    return _f32(0.5 + 0.5 * np.tanh(value / (2 * softness)))


def _unit_energy_gaussian(sigma_px: float) -> NDArray[np.float64]:
    reach = int(np.ceil(3 * sigma_px))
    kernel: NDArray[np.float64] = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma_px**2))
    return kernel / np.linalg.norm(kernel)


def _keep_inside(positions: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Shift positions into [low, high]; what is too long for it is centred."""
    first, last = float(positions.min()), float(positions.max())
    if last - first > high - low:
        return positions + (low + high - first - last) / 2
    return positions + max(low - first, 0.0) + min(high - last, 0.0)


def _f32(values: ArrayLike) -> Field:
    return np.asarray(values, dtype=np.float32)
