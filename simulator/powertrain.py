"""Lists the samplers of the powertrain bus, one for each message of demo_powertrain.dbc.  Pure."""

from collections.abc import Mapping
from typing import Final

from simulator import chassis, engine, traction
from simulator.sampling import Sampler

SAMPLERS: Final[Mapping[str, Sampler]] = {**chassis.SAMPLERS, **engine.SAMPLERS, **traction.SAMPLERS}
