"""Run a command and print what it took: seconds, CPU seconds, peak GB, as JSON.

A process of its own, and a small one, because Linux counts the peak memory of whoever starts a program to the program.
"""

import json
import os
import subprocess
import sys
import time

if __name__ == "__main__":
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    took = {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
    }
    print(json.dumps(took))
    sys.exit(os.waitstatus_to_exitcode(status))
