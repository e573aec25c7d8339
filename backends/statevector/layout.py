"""Between rows of samples, as tensors hold them, and blocks of lanes side by side, as the kernels take them.

Axis legend: B samples, c columns, V lanes of a block, N amplitudes.
"""

from backends.statevector.jit import exact


@exact
def load(rows, first, columns, fill):
    """Lay rows ``first ...`` of (B, c) out as columns (c, V); lanes behind the last row are filled up."""
    for c in range(columns.shape[0]):
        for v in range(columns.shape[1]):
            columns[c, v] = rows[first + v, c] if first + v < rows.shape[0] else fill


@exact
def store(columns, rows, first):
    """The way back."""
    for v in range(min(columns.shape[1], rows.shape[0] - first)):
        for c in range(columns.shape[0]):
            rows[first + v, c] = columns[c, v]


@exact
def write_states(planes, states, first, lanes):
    """Copy a block's states to rows ``first ...`` of ``states`` (B, N, 2)."""
    re, im, _, _ = planes
    for v in range(min(lanes, states.shape[0] - first)):
        sample = states[first + v]
        for n in range(sample.shape[0]):
            sample[n, 0] = re[n * lanes + v]
            sample[n, 1] = im[n * lanes + v]


@exact
def read_bra(bra, cotangents, first, lanes):
    """Half the cotangents (B, N, 2) of a block's states, ``dL = Re <c|d psi> = 2 Re <bra|d psi>``; 0 where none are."""
    bre, bim = bra
    for t in range(bre.shape[0]):
        bre[t], bim[t] = 0, 0
    for v in range(min(lanes, cotangents.shape[0] - first)):
        sample = cotangents[first + v]
        for n in range(sample.shape[0]):
            bre[n * lanes + v] = sample[n, 0] / 2
            bim[n * lanes + v] = sample[n, 1] / 2


@exact
def keep(planes, kept):
    """Copy a block's state to ``kept`` (2, N V)."""
    for t in range(kept.shape[1]):
        kept[0, t], kept[1, t] = planes[0][t], planes[1][t]


@exact
def recall(kept, planes):
    """The way back."""
    for t in range(kept.shape[1]):
        planes[0][t], planes[1][t] = kept[0, t], kept[1, t]
