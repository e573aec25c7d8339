"""``python -m benchmarks.statevector``: one thread for everyone, told before anything is imported that reads it."""

import os

os.environ["OMP_NUM_THREADS"] = "1"

from benchmarks.statevector.run import main

if __name__ == "__main__":
    main()
