"""Makes the clip that is published: colours that alternate every half second, and a tone."""

import fractions

import av
import numpy

# Long enough for every test: aiortc's own loop sends the picture's time backwards.
SECONDS = 40
FRAMES_PER_SECOND = 20
WIDTH, HEIGHT = 320, 240
SAMPLES_PER_SECOND = 48_000
TONE_HZ = 440
# Colours far apart, so that no codec mistakes one for another.
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
CHANGE_EVERY_FRAMES = 10


def make(path: str) -> None:
    """Writes a Matroska file with VP8 and Opus, interleaved as a player expects it."""
    with av.open(path, "w", format="matroska") as container:
        video = container.add_stream("libvpx", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.options = {"deadline": "realtime", "lag-in-frames": "0", "threads": "1", "g": "20"}
        audio = container.add_stream("libopus", rate=SAMPLES_PER_SECOND, layout="stereo")
        for number in range(SECONDS * FRAMES_PER_SECOND):
            container.mux(video.encode(picture(number)))
            container.mux(audio.encode(sound(number)))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def picture(number: int) -> av.VideoFrame:
    """The picture with this number: one colour."""
    colours = list(COLOURS.values())
    colour = colours[number // CHANGE_EVERY_FRAMES % len(colours)]
    pixels = numpy.full((HEIGHT, WIDTH, 3), colour, dtype=numpy.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame.pts, frame.time_base = number, fractions.Fraction(1, FRAMES_PER_SECOND)
    return frame


def sound(number: int) -> av.AudioFrame:
    """The tone that belongs to this picture."""
    count = SAMPLES_PER_SECOND // FRAMES_PER_SECOND
    times = numpy.arange(number * count, (number + 1) * count) / SAMPLES_PER_SECOND
    wave = (numpy.sin(2 * numpy.pi * TONE_HZ * times) * 12_000).astype(numpy.int16)
    frame = av.AudioFrame.from_ndarray(
        numpy.repeat(wave, 2).reshape(1, -1), format="s16", layout="stereo"
    )
    frame.sample_rate = SAMPLES_PER_SECOND
    frame.pts, frame.time_base = number * count, fractions.Fraction(1, SAMPLES_PER_SECOND)
    return frame


def colour_of(picture: numpy.ndarray) -> str:
    """The name of the colour that a decoded picture (RGB) is nearest to."""
    mean = picture.reshape(-1, 3).mean(axis=0)
    return min(COLOURS, key=lambda name: float(((mean - COLOURS[name]) ** 2).sum()))


def tone_of(samples: numpy.ndarray) -> float:
    """The strongest frequency in mono samples, in Hz."""
    spectrum = numpy.abs(numpy.fft.rfft(samples * numpy.hanning(len(samples))))
    return float(numpy.argmax(spectrum)) * SAMPLES_PER_SECOND / len(samples)
