"""Which of a million codes are near each other: candidates, in memory that does not grow with the number of pairs.

Codes of bits are searched through faiss. Up to `EXACT` of them every code is compared; more are sorted into cells, each
around one code of the set itself (so nothing has to be trained), and only the nearest cells are looked through.
"""

from collections.abc import Iterator

import numpy as np

from mmaudio.evaluation.hygiene.errors import HygieneError

EXACT = 20_000  # codes
CODES_PER_CELL = 400
PROBES = 32  # cells that are looked through for each code
BLOCK = 8192  # codes that are searched at once
CROWDED = 8  # times the usual number of codes in the cells: then the rest is left out


class CodeIndex:
    """Codes uint8 (N, bits / 8) that can be found by others which differ in a few bits.

    Raises:
        HygieneError: faiss is not installed.
    """

    def __init__(self, codes: np.ndarray):
        faiss = load_faiss()
        count, width = codes.shape
        codes = np.ascontiguousarray(codes)
        if count <= EXACT:
            self.index = faiss.IndexBinaryFlat(8 * width)
        else:
            cells = count // CODES_PER_CELL
            self.quantizer = faiss.IndexBinaryFlat(8 * width)  # kept: the index does not own it
            self.quantizer.add(codes[np.random.default_rng(0).choice(count, cells, replace=False)])
            self.index = faiss.IndexBinaryIVF(self.quantizer, 8 * width, cells)
            self.index.is_trained = True
            self.index.nprobe = min(PROBES, cells)
            self.index.max_codes = CROWDED * PROBES * CODES_PER_CELL
        for first in range(0, count, BLOCK):
            self.index.add(codes[first : first + BLOCK])

    def nearest(self, codes: np.ndarray, radius: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
        """Block by block: how many codes were searched, and int64 (n, 2) (row of `codes`, row of the index).

        Those that differ in at most `radius` bits, at most `count` for each code, the nearest.
        """
        codes = np.ascontiguousarray(codes)
        for first in range(0, len(codes), BLOCK):
            distances, found = self.index.search(codes[first : first + BLOCK], count)
            rows, places = np.nonzero((distances <= radius) & (found >= 0))
            yield len(found), np.stack([rows + first, found[rows, places]], axis=1)


def load_faiss():
    try:
        import faiss
    except ImportError as error:
        raise HygieneError("near-duplicates are searched with faiss; pip install faiss-cpu") from error
    return faiss
