"""2x2 matrices of lanes: from half angles, and the slopes of angles in front of them.

Axis legend: V lanes; matrices (8, V): rows, real and imaginary parts in turn; slopes (3, V) along X, Y and Z.
"""

from backends.statevector.jit import fast


@fast
def lane_matrix(u, turned, cos, sin, lanes, out):
    """``cos U + sin turned`` per lane as (8, V)."""
    for at in range(8):
        entry, factor, turn = out[at], u[at], turned[at]
        for v in range(lanes):
            entry[v] = factor * cos[v] + turn * sin[v]


@fast
def matrix_of(row, matrices, turned, lane_cos, lane_sin, lanes, out):
    """The matrix of a row of ``start`` per lane, (8, V)."""
    number, lane = row[0], row[1]
    if lane >= 0:
        lane_matrix(matrices[number], turned[number], lane_cos[lane], lane_sin[lane], lanes, out)
    else:
        for at in range(8):
            out[at] = matrices[number, at]


@fast
def lane_slopes(three, axis, slopes, out):
    """Slopes (3, V) of one matrix: along the lane angle's axis per lane, and summed for the shared gates."""
    for v in range(three.shape[1]):
        out[v] += axis[0] * three[0, v] + axis[1] * three[1, v] + axis[2] * three[2, v]
        for p in range(3):
            slopes[p] += three[p, v]


@fast
def turn_slopes(three, u):
    """Slopes (3, V) of a wire before a matrix u (8, V), from those behind it: ``Im <bra|u P u^dagger|psi>`` for P."""
    ar, ai, br, bi, cr, ci, dr, di = u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7]
    gx, gy, gz = three[0], three[1], three[2]
    for v in range(three.shape[1]):
        x, y, z = gx[v], gy[v], gz[v]
        pr, pi = cr[v] * br[v] + ci[v] * bi[v], ci[v] * br[v] - cr[v] * bi[v]  # c b*
        qr, qi = ar[v] * dr[v] + ai[v] * di[v], ar[v] * di[v] - ai[v] * dr[v]  # a* d
        sr, si = ar[v] * br[v] + ai[v] * bi[v], ai[v] * br[v] - ar[v] * bi[v]  # a b*
        tr, ti = ar[v] * cr[v] + ai[v] * ci[v], ar[v] * ci[v] - ai[v] * cr[v]  # a* c
        lengths = ar[v] * ar[v] + ai[v] * ai[v] - cr[v] * cr[v] - ci[v] * ci[v]
        gx[v] = (pr + qr) * x + (pi + qi) * y + (sr + sr) * z
        gy[v] = (pi - qi) * x + (qr - pr) * y + (si + si) * z
        gz[v] = (tr + tr) * x + (ti + ti) * y + lengths * z
