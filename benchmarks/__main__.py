"""``python -m benchmarks`` runs bench.py where the other libraries are, one thread each."""

import os
import subprocess
import sys

from .environment import ROOT, peers_python

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NO_BARS = {"TQDM_DISABLE": "1"}
# glibc gives large pieces of memory back to the system and asks again at the network's next call,
# or keeps them, as its history has it: a factor of two that depends on what ran before. Keep them.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}

command = [str(peers_python()), "-m", "benchmarks.bench", *sys.argv[1:]]
sys.exit(
    subprocess.run(
        command, cwd=ROOT, check=False, env={**os.environ, **ONE_THREAD, **NO_BARS, **KEEP_MEMORY}
    ).returncode
)
