"""``python -m MMRegCore`` is ``mmreg``."""

import sys

from MMRegCore.cli import main

sys.exit(main())
