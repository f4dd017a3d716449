"""Makes the clip that is published: colours that alternate every half second, and a tone."""

import fractions

import av
import numpy

# Long enough for every test: aiortc's own loop sends the picture's time backwards.
SECONDS = 90
FRAMES_PER_SECOND = 20
WIDTH, HEIGHT = 320, 240
SAMPLES_PER_SECOND = 48_000
TONE_HZ = 440
# Colours far apart, so that no codec mistakes one for another.
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}
CHANGE_EVERY_FRAMES = 10


def make(path: str) -> None:
    """Writes a Matroska file with VP8 and Opus."""
    with av.open(path, "w", format="matroska") as container:
        video = container.add_stream("libvpx", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.options = {"deadline": "realtime", "g": "20"}
        audio = container.add_stream("libopus", rate=SAMPLES_PER_SECOND, layout="stereo")
        colours = list(COLOURS.values())
        for number in range(SECONDS * FRAMES_PER_SECOND):
            colour = colours[number // CHANGE_EVERY_FRAMES % len(colours)]
            picture = numpy.full((HEIGHT, WIDTH, 3), colour, dtype=numpy.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, fractions.Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(frame))
        step = 960
        for start in range(0, SECONDS * SAMPLES_PER_SECOND, step):
            times = numpy.arange(start, start + step) / SAMPLES_PER_SECOND
            wave = (numpy.sin(2 * numpy.pi * TONE_HZ * times) * 12_000).astype(numpy.int16)
            stereo = numpy.repeat(wave, 2).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(stereo, format="s16", layout="stereo")
            frame.sample_rate = SAMPLES_PER_SECOND
            frame.pts, frame.time_base = start, fractions.Fraction(1, SAMPLES_PER_SECOND)
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def colour_of(picture: numpy.ndarray) -> str:
    """The name of the colour that a decoded picture (RGB) is nearest to."""
    mean = picture.reshape(-1, 3).mean(axis=0)
    return min(COLOURS, key=lambda name: float(((mean - COLOURS[name]) ** 2).sum()))


def tone_of(samples: numpy.ndarray) -> float:
    """The strongest frequency in mono samples, in Hz."""
    spectrum = numpy.abs(numpy.fft.rfft(samples * numpy.hanning(len(samples))))
    return float(numpy.argmax(spectrum)) * SAMPLES_PER_SECOND / len(samples)
