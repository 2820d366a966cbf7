"""The sizes of the bases of a layer with full rank."""

from randlora.update import Sizes


def sizes(r, small, large, num_bases=None):
    return Sizes(r, num_bases or -(-small // r), small, large)
