"""``python -m benchmarks`` prints the table of bench.py."""

from .bench import main

main()
