"""Lists the samplers of the body bus, one for each message of demo_body.dbc.  Pure."""

from collections.abc import Mapping
from typing import Final

from simulator import comfort, information
from simulator.sampling import Sampler

SAMPLERS: Final[Mapping[str, Sampler]] = {**comfort.SAMPLERS, **information.SAMPLERS}
