"""``python -m standin.run FILE``: the tests of one file over the stand-in, in a process that ends at once then."""

import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

if __name__ == "__main__":
    import pytest

    code = pytest.main([*sys.argv[1:], "-q", "-p", "no:cacheprovider"])
    sys.stdout.flush()
    sys.stderr.flush()
    # Widgets, VTK and Python would be torn down in an order that crashes now and then, after all tests are over.
    os._exit(int(code))
