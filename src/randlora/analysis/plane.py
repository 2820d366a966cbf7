"""The plane through three models, in two kinds of coordinates."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from randlora.errors import ConfigError

Point = tuple[float, float]


@dataclass(frozen=True)
class Plane:
    """Where in the plane the three models lie; every other point is a weighted sum of them.

    Attributes:
        name: "paper" or "orthonormal".
        corners: Coordinates of the models.
    """

    name: str
    corners: tuple[Point, Point, Point]

    def weights(self, x: float, y: float) -> tuple[float, float, float]:
        """The factors of the three models at a point; their sum is 1, and in a corner they are 1, 0 and 0 exactly.

        In the paper's plane they are a = 1 − y/2 − x, b = y and c = x − y/2.
        """
        for number, corner in enumerate(self.corners):
            if (x, y) == corner:
                return tuple(float(number == other) for other in range(3))  # type: ignore[return-value]
        (x0, y0), (x1, y1), (x2, y2) = self.corners
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        b = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
        c = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
        return 1 - b - c, b, c

    def axes(self, margin: float, count: int) -> tuple[list[float], list[float]]:
        """Coordinates of a grid over the triangle and a margin around it.

        Args:
            margin: Its width, in the plane's units.
            count: Points on each axis.
        """
        xs, ys = zip(*self.corners, strict=True)
        lines = (torch.linspace(min(v) - margin, max(v) + margin, count, dtype=torch.float64) for v in (xs, ys))
        x, y = (line.tolist() for line in lines)
        return x, y


PAPER = Plane("paper", ((0.0, 0.0), (0.5, 1.0), (1.0, 0.0)))
"""The paper's (Figures 4b and 5): every triangle of models looks the same, whatever their distances."""


def orthonormal(products: Tensor) -> Plane:
    """The plane with true angles and lengths, whose unit is the distance from the first model to the third.

    Args:
        products: (2, 2), the inner products of (θ₂ − θ₁, θ₃ − θ₁).

    Raises:
        ConfigError: The models lie on a line.
    """
    (second, mixed), (_, third) = products.tolist()
    height = second - mixed**2 / third if third > 0 else 0.0
    if height <= 1e-12 * max(second, third):
        raise ConfigError("runs", expected="three models that span a plane", got="models on a line")
    return Plane("orthonormal", ((0.0, 0.0), (mixed / third, math.sqrt(height / third)), (1.0, 0.0)))
