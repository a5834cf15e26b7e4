import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

rows = sorted(line.split() for line in sys.stdin)
Path("out.txt").write_text("".join(f"{name} {score}\n" for name, score in rows))
with ThreadPoolExecutor(2) as pool:
    total = sum(pool.map(int, (score for _, score in rows)))
matrix = numpy.array([[2.0, 1.0], [1.0, 3.0]])
assert numpy.allclose(numpy.linalg.inv(matrix) @ matrix, numpy.eye(2))
assert total == numpy.array([int(score) for _, score in rows]).sum()
print(", ".join(sys.argv[1:]))
print(Path("out.txt").read_text(), end="")
print("sum", total)
print("2^100 =", 2**100)
