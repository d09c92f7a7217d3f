"""Captioned pictures of coloured shapes, drawn at random: what tiny-shapes was trained on.  About 1 ms a picture."""

import math
import random

from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40), "green": (46, 160, 67), "blue": (38, 84, 214), "yellow": (250, 208, 44),
    "orange": (245, 130, 32), "purple": (130, 60, 180), "pink": (246, 130, 180), "cyan": (40, 195, 210),
    "brown": (121, 78, 46), "black": (20, 20, 20), "white": (246, 246, 246), "gray": (130, 130, 130),
}  # fmt: skip
SHAPES = (
    "circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross", "house", "tree", "moon", "flower",
)  # fmt: skip
SIZES = {"small": 0.20, "medium": 0.30, "large": 0.40}
PLACES = {
    "": (0.0, 0.0),
    "on the left": (-0.2, 0.0),
    "on the right": (0.2, 0.0),
    "at the top": (0.0, -0.2),
    "at the bottom": (0.0, 0.2),
}
OPENINGS = ("", "", "", "", "a picture of ", "an image of ", "a drawing of ", "draw ", "a photo of ", "please draw ")
OVERSAMPLED = 4
_TRUNK, _YOLK = (110, 70, 40), COLOURS["yellow"]

Colour = tuple[int, int, int]


def sample(rng: random.Random, side: int) -> tuple[str, Image.Image]:
    """A caption and its picture of so many pixels a side."""
    ground = rng.choice(list(COLOURS))
    full = side * OVERSAMPLED
    picture = Image.new("RGB", (full, full), COLOURS[ground])
    pen = ImageDraw.Draw(picture)

    def colour() -> str:
        return rng.choice([name for name in COLOURS if name != ground])

    def shake() -> float:
        return rng.uniform(-0.03, 0.03)

    if rng.random() < 0.06:
        shapes, colours = [rng.choice(SHAPES) for _ in range(2)], [colour() for _ in range(2)]
        radius = full * rng.uniform(0.17, 0.21)
        for shape, name, x in zip(shapes, colours, (0.27, 0.73), strict=True):
            draw(pen, shape, COLOURS[name], COLOURS[ground], full * (x + shake()), full * (0.5 + shake()), radius)
        caption = f"a {colours[0]} {shapes[0]} and a {colours[1]} {shapes[1]}"
    else:
        shape, name = rng.choice(SHAPES), colour()
        size, place = rng.choice(["", "", "", *SIZES]), rng.choice(["", "", "", *PLACES])
        radius = SIZES[size or rng.choice(["medium", "medium", "large"])] * rng.uniform(0.94, 1.06)
        dx, dy = PLACES[place]
        if radius > 0.33:
            dx, dy = dx / 2, dy / 2
        x, y = full * (0.5 + dx + shake()), full * (0.5 + dy + shake())
        draw(pen, shape, COLOURS[name], COLOURS[ground], x, y, full * radius)
        caption = f"a {size + ' ' if size else ''}{name} {shape}{' ' + place if place else ''}"
    endings = [f" on a {ground} background"] * 3 + [f", {ground} background", f" on {ground}", f" {ground} background"]
    caption = rng.choice(OPENINGS) + caption + rng.choice(endings)
    if rng.random() < 0.15:
        caption = caption.removeprefix("a ")
    return caption, picture.resize((side, side), Image.Resampling.LANCZOS)


def draw(pen: ImageDraw.ImageDraw, shape: str, c: Colour, ground: Colour, x: float, y: float, r: float) -> None:
    """A shape around (x, y) with radius r, all in pixels; holes are filled with the ground's colour."""

    def disc(cx: float, cy: float, radius: float, colour: Colour) -> None:
        pen.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=colour)

    match shape:
        case "circle":
            disc(x, y, r, c)
        case "square":
            q = r * 0.88
            pen.rectangle((x - q, y - q, x + q, y + q), fill=c)
        case "triangle":
            pen.polygon(_polygon(x, y + r * 0.15, r * 1.1, 3), fill=c)
        case "star":
            pen.polygon(_polygon(x, y, r * 1.1, 5, inner=r * 0.45), fill=c)
        case "diamond":
            pen.polygon([(x, y - r * 1.15), (x + r * 0.8, y), (x, y + r * 1.15), (x - r * 0.8, y)], fill=c)
        case "heart":
            turns = [2 * math.pi * n / 60 for n in range(60)]
            pen.polygon([(x + r * 0.066 * 16 * math.sin(t) ** 3, y - r * 0.066 * _heart(t)) for t in turns], fill=c)
        case "ring":
            disc(x, y, r, c)
            disc(x, y, r * 0.55, ground)
        case "cross":
            w = r * 0.36
            pen.rectangle((x - w, y - r, x + w, y + r), fill=c)
            pen.rectangle((x - r, y - w, x + r, y + w), fill=c)
        case "house":
            roof = (int(c[0] * 0.6), int(c[1] * 0.6), int(c[2] * 0.6))
            pen.rectangle((x - r * 0.75, y - r * 0.1, x + r * 0.75, y + r), fill=c)
            pen.polygon([(x - r, y - r * 0.1), (x + r, y - r * 0.1), (x, y - r)], fill=roof)
            pen.rectangle((x - r * 0.18, y + r * 0.4, x + r * 0.18, y + r), fill=ground)
        case "tree":
            pen.rectangle((x - r * 0.14, y + r * 0.2, x + r * 0.14, y + r), fill=_TRUNK)
            pen.ellipse((x - r * 0.75, y - r, x + r * 0.75, y + r * 0.45), fill=c)
        case "moon":
            disc(x, y, r, c)
            pen.ellipse((x - r * 0.45, y - r * 1.05, x + r * 1.35, y + r * 0.75), fill=ground)
        case "flower":
            for n in range(6):
                a = math.radians(60 * n)
                disc(x + r * 0.6 * math.cos(a), y + r * 0.6 * math.sin(a), r * 0.4, c)
            disc(x, y, r * 0.35, COLOURS["red"] if c == _YOLK else _YOLK)


def _heart(t: float) -> float:
    return 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)


def _polygon(x: float, y: float, r: float, corners: int, inner: float | None = None) -> list[tuple[float, float]]:
    points = []
    count = corners if inner is None else corners * 2
    for n in range(count):
        a = math.radians(360 * n / count - 90)
        radius = r if inner is None or n % 2 == 0 else inner
        points.append((x + radius * math.cos(a), y + radius * math.sin(a)))
    return points
