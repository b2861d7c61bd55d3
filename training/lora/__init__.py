"""What runs with torch to make adapters; started as processes, imported by nothing but the encoder.

OpenMP's threads spin at every barrier by default. Beside a busy neighbour that is fatal (measured on two cores with
three other processes: 25 to 50 s a step against 8), and it must be said before torch is loaded.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
