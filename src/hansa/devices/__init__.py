"""Devices for simulation: who is online when, how fast each is, and who vanishes.

A trace is a property of the simulation, never of a plan: the same job with other devices is the
same plan. Times are virtual seconds since the simulation began, which is a midnight in UTC.
"""

from hansa.devices.availability import ALWAYS, Always, Availability, Daily, Recorded
from hansa.devices.file import load_devices
from hansa.devices.fleet import Devices, Failures, Outcome, Work
from hansa.devices.origin import Origin
from hansa.devices.speed import LogNormal, RecordedSpeeds, Speed

__all__ = [
    "ALWAYS",
    "Always",
    "Availability",
    "Daily",
    "Devices",
    "Failures",
    "LogNormal",
    "Origin",
    "Outcome",
    "Recorded",
    "RecordedSpeeds",
    "Speed",
    "Work",
    "load_devices",
]
