"""Additive adapters as PEFT tuners: layers, kinds of layers, merging, registration. No method is in here."""

from randlora.adapter.base_layer import AdapterLayer
from randlora.adapter.base_tuner import AdapterTuner
from randlora.adapter.registration import register_method

__all__ = ["AdapterLayer", "AdapterTuner", "register_method"]
