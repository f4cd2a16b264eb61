"""Who takes part in a round, and how much privacy it is worth that nobody knows who does.

A plan names the size of the population. Where fewer clients are there, the missing ones are drawn
like the others and contribute nothing, so that each client's chance is the one that the plan
accounts for. More clients than planned are refused: bounds and accounting would not hold.
"""

from hansa.samplers.arrival import Arrival
from hansa.samplers.cyclic import Cyclic
from hansa.samplers.drawn import Everyone, FixedSize, Poisson
from hansa.samplers.known import Known

__all__ = ["Arrival", "Cyclic", "Everyone", "FixedSize", "Known", "Poisson"]
