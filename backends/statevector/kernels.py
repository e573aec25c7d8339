"""What the compiled executor does to a block of samples: one interpreter for all programs.

A block is V samples, side by side (lanes): plane ``re`` and plane ``im`` of N V numbers, amplitude k of lane v at
``k V + v``, so that every inner loop runs over contiguous numbers. No prange and no allocation inside the loops over
instructions; the callers spread blocks over threads.

Axis legend: N amplitudes, V lanes, m contiguous numbers of one value of a wire's bit.
"""

from backends.statevector.jit import fast


@fast
def matrix(re, im, size, m, u):
    """Apply a 2x2 matrix u (8: rows, real and imaginary parts in turn) to the bit that changes every m numbers."""
    ar, ai, br, bi, cr, ci, dr, di = u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7]
    for h in range(0, size, 2 * m):
        r0, r1 = re[h : h + m], re[h + m : h + 2 * m]
        i0, i1 = im[h : h + m], im[h + m : h + 2 * m]
        for t in range(m):
            xr, xi, yr, yi = r0[t], i0[t], r1[t], i1[t]
            r0[t] = ar * xr - ai * xi + br * yr - bi * yi
            i0[t] = ar * xi + ai * xr + br * yi + bi * yr
            r1[t] = cr * xr - ci * xi + dr * yr - di * yi
            i1[t] = cr * xi + ci * xr + dr * yi + di * yr


@fast
def matrix_lanes(re, im, size, m, lanes, u):
    """Apply a 2x2 matrix per lane, u (8, V)."""
    ar, ai, br, bi, cr, ci, dr, di = u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7]
    for h in range(0, size, 2 * m):
        for j in range(h, h + m, lanes):
            r0, r1 = re[j : j + lanes], re[j + m : j + m + lanes]
            i0, i1 = im[j : j + lanes], im[j + m : j + m + lanes]
            for v in range(lanes):
                xr, xi, yr, yi = r0[v], i0[v], r1[v], i1[v]
                r0[v] = ar[v] * xr - ai[v] * xi + br[v] * yr - bi[v] * yi
                i0[v] = ar[v] * xi + ai[v] * xr + br[v] * yi + bi[v] * yr
                r1[v] = cr[v] * xr - ci[v] * xi + dr[v] * yr - di[v] * yi
                i1[v] = cr[v] * xi + ci[v] * xr + dr[v] * yi + di[v] * yr


@fast
def rotate(re, im, size, m, cos, sin):
    """Apply ``[[cos, -sin], [sin, cos]]`` to the bit that changes every m numbers."""
    for h in range(0, size, 2 * m):
        r0, r1 = re[h : h + m], re[h + m : h + 2 * m]
        i0, i1 = im[h : h + m], im[h + m : h + 2 * m]
        for t in range(m):
            xr, xi, yr, yi = r0[t], i0[t], r1[t], i1[t]
            r0[t] = cos * xr - sin * yr
            i0[t] = cos * xi - sin * yi
            r1[t] = sin * xr + cos * yr
            i1[t] = sin * xi + cos * yi


@fast
def gather(target_re, target_im, source_re, source_im, order, tables, table, inverse, lanes):
    """``target[k] = phases[k] source[order[k]]``; the inverse has the inverse order, and ``conj(phases[order[k]])``.

    Tables (t, 2, N): real and imaginary parts of phases; with table -1 they are 1.
    """
    for k in range(order.shape[0]):
        to, at = k * lanes, order[k] * lanes
        tr, ti = target_re[to : to + lanes], target_im[to : to + lanes]
        sr, si = source_re[at : at + lanes], source_im[at : at + lanes]
        if table < 0:
            for v in range(lanes):
                tr[v], ti[v] = sr[v], si[v]
        else:
            which = order[k] if inverse else k
            pr = tables[table, 0, which]
            pi = -tables[table, 1, which] if inverse else tables[table, 1, which]
            for v in range(lanes):
                xr, xi = sr[v], si[v]
                tr[v] = pr * xr - pi * xi
                ti[v] = pr * xi + pi * xr


@fast
def cnot(re, im, n_amplitudes, lanes, control, target):
    """Exchange the amplitudes that differ in the target's bit where the control's is set; its own inverse."""
    for k in range(n_amplitudes):
        if k & control and not k & target:
            other = k | target
            r0, r1 = re[k * lanes : (k + 1) * lanes], re[other * lanes : (other + 1) * lanes]
            i0, i1 = im[k * lanes : (k + 1) * lanes], im[other * lanes : (other + 1) * lanes]
            for v in range(lanes):
                r0[v], r1[v] = r1[v], r0[v]
                i0[v], i1[v] = i1[v], i0[v]


@fast
def cz(re, im, n_amplitudes, lanes, both):
    """Change the sign of the amplitudes with both bits set; its own inverse."""
    for k in range(n_amplitudes):
        if k & both == both:
            r, i = re[k * lanes : (k + 1) * lanes], im[k * lanes : (k + 1) * lanes]
            for v in range(lanes):
                r[v], i[v] = -r[v], -i[v]


@fast
def parity(number):
    """-1.0 for an odd number of ones, else 1.0."""
    number ^= number >> 32
    number ^= number >> 16
    number ^= number >> 8
    number ^= number >> 4
    number ^= number >> 2
    number ^= number >> 1
    return 1.0 - 2.0 * (number & 1)


@fast
def power(exponent):
    """``i**exponent`` as (real, imaginary)."""
    turns = exponent & 3
    return (1 - turns) * (1 - (turns & 1)) * 1.0, (2 - turns) * (turns & 1) * 1.0


@fast
def chunk_of(x, z, size):
    """How many amplitudes in a row a word treats alike: its lowest bit, or all of them for the identity."""
    both = x | z
    return min(both & -both, size) if both else size


@fast
def highest(x):
    """The highest bit of x."""
    bit = 1
    while bit * 2 <= x:
        bit *= 2
    return bit


@fast
def word(re, im, n_amplitudes, lanes, x, z, n_y, cos, sin):
    """Apply ``cos - i sin P`` for a word P, cos and sin per lane (V,); with ``n_y + 2`` the inverse.

    ``(P psi)[k] = i**n_y (-1)**((k ^ x) & z) psi[k ^ x]``.
    """
    chunk = chunk_of(x, z, n_amplitudes)
    if x == 0:
        for base in range(0, n_amplitudes, chunk):
            sign = parity(base & z) * (1 - (n_y & 2))
            for k in range(base, base + chunk):
                r, i = re[k * lanes : (k + 1) * lanes], im[k * lanes : (k + 1) * lanes]
                for v in range(lanes):
                    turn = sign * sin[v]
                    real = cos[v] * r[v] + turn * i[v]
                    i[v] = cos[v] * i[v] - turn * r[v]
                    r[v] = real
        return
    phase_re, phase_im = power(n_y + 3)  # -i i**n_y
    top = highest(x)
    for base in range(0, n_amplitudes, chunk):
        if base & top:
            continue
        sign_low, sign_high = parity((base ^ x) & z), parity(base & z)
        fr, fi = phase_re * sign_low, phase_im * sign_low
        gr, gi = phase_re * sign_high, phase_im * sign_high
        for k in range(base, base + chunk):
            other = k ^ x
            r0, i0 = re[k * lanes : (k + 1) * lanes], im[k * lanes : (k + 1) * lanes]
            r1, i1 = re[other * lanes : (other + 1) * lanes], im[other * lanes : (other + 1) * lanes]
            for v in range(lanes):
                xr, xi, yr, yi = r0[v], i0[v], r1[v], i1[v]
                r0[v] = cos[v] * xr + sin[v] * (fr * yr - fi * yi)
                i0[v] = cos[v] * xi + sin[v] * (fr * yi + fi * yr)
                r1[v] = cos[v] * yr + sin[v] * (gr * xr - gi * xi)
                i1[v] = cos[v] * yi + sin[v] * (gr * xi + gi * xr)


@fast
def add_word(out_re, out_im, re, im, n_amplitudes, lanes, x, z, n_y, factor):
    """``out += factor P psi``, factor per lane (V,)."""
    phase_re, phase_im = power(n_y)
    for k in range(n_amplitudes):
        other = k ^ x
        sign = parity(other & z)
        fr, fi = phase_re * sign, phase_im * sign
        a, b = out_re[k * lanes : (k + 1) * lanes], out_im[k * lanes : (k + 1) * lanes]
        r, i = re[other * lanes : (other + 1) * lanes], im[other * lanes : (other + 1) * lanes]
        for v in range(lanes):
            a[v] += factor[v] * (fr * r[v] - fi * i[v])
            b[v] += factor[v] * (fr * i[v] + fi * r[v])


@fast
def overlap_word(out, bra_re, bra_im, re, im, n_amplitudes, lanes, x, z, n_y):
    """``out = Re <bra|P|psi>`` per lane (V,); with ``n_y + 3`` the imaginary part, since ``Im z = Re(-i z)``."""
    phase_re, phase_im = power(n_y)
    for v in range(lanes):
        out[v] = 0.0
    for k in range(n_amplitudes):
        other = k ^ x
        sign = parity(other & z)
        fr, fi = phase_re * sign, phase_im * sign
        a, b = bra_re[k * lanes : (k + 1) * lanes], bra_im[k * lanes : (k + 1) * lanes]
        r, i = re[other * lanes : (other + 1) * lanes], im[other * lanes : (other + 1) * lanes]
        for v in range(lanes):
            out[v] += fr * (a[v] * r[v] + b[v] * i[v]) + fi * (b[v] * r[v] - a[v] * i[v])


@fast
def slopes(re, im, bra_re, bra_im, size, m):
    """Imaginary parts of <bra|X|psi>, <bra|Y|psi>, <bra|Z|psi> on one wire, summed over lanes."""
    gx, gy, gz = re[0] * 0, re[0] * 0, re[0] * 0
    for h in range(0, size, 2 * m):
        a0, a1, b0, b1 = re[h : h + m], re[h + m : h + 2 * m], im[h : h + m], im[h + m : h + 2 * m]
        c0, c1 = bra_re[h : h + m], bra_re[h + m : h + 2 * m]
        d0, d1 = bra_im[h : h + m], bra_im[h + m : h + 2 * m]
        for t in range(m):
            gx += c0[t] * b1[t] - d0[t] * a1[t] + c1[t] * b0[t] - d1[t] * a0[t]
            gy += c1[t] * a0[t] + d1[t] * b0[t] - c0[t] * a1[t] - d0[t] * b1[t]
            gz += c0[t] * b0[t] - d0[t] * a0[t] - c1[t] * b1[t] + d1[t] * a1[t]
    return gx, gy, gz


@fast
def unrotate(re, im, bra_re, bra_im, size, m, cos, sin):
    """Undo ``rotate`` on state and bra in one pass, and return ``slopes`` of them as they were before."""
    gx, gy, gz = re[0] * 0, re[0] * 0, re[0] * 0
    for h in range(0, size, 2 * m):
        a0, a1, b0, b1 = re[h : h + m], re[h + m : h + 2 * m], im[h : h + m], im[h + m : h + 2 * m]
        c0, c1 = bra_re[h : h + m], bra_re[h + m : h + 2 * m]
        d0, d1 = bra_im[h : h + m], bra_im[h + m : h + 2 * m]
        for t in range(m):
            xr, xi, yr, yi = a0[t], b0[t], a1[t], b1[t]
            ur, ui, wr, wi = c0[t], d0[t], c1[t], d1[t]
            gx += ur * yi - ui * yr + wr * xi - wi * xr
            gy += wr * xr + wi * xi - ur * yr - ui * yi
            gz += ur * xi - ui * xr - wr * yi + wi * yr
            a0[t] = cos * xr + sin * yr
            b0[t] = cos * xi + sin * yi
            a1[t] = cos * yr - sin * xr
            b1[t] = cos * yi - sin * xi
            c0[t] = cos * ur + sin * wr
            d0[t] = cos * ui + sin * wi
            c1[t] = cos * wr - sin * ur
            d1[t] = cos * wi - sin * ui
    return gx, gy, gz


@fast
def slopes_lanes(re, im, bra_re, bra_im, size, m, lanes, out):
    """The same per lane: out (3, V)."""
    ox, oy, oz = out[0], out[1], out[2]
    for v in range(lanes):
        ox[v], oy[v], oz[v] = 0.0, 0.0, 0.0
    for h in range(0, size, 2 * m):
        for j in range(h, h + m, lanes):
            a0, a1 = re[j : j + lanes], re[j + m : j + m + lanes]
            b0, b1 = im[j : j + lanes], im[j + m : j + m + lanes]
            c0, c1 = bra_re[j : j + lanes], bra_re[j + m : j + m + lanes]
            d0, d1 = bra_im[j : j + lanes], bra_im[j + m : j + m + lanes]
            for v in range(lanes):
                ox[v] += c0[v] * b1[v] - d0[v] * a1[v] + c1[v] * b0[v] - d1[v] * a0[v]
                oy[v] += c1[v] * a0[v] + d1[v] * b0[v] - c0[v] * a1[v] - d0[v] * b1[v]
                oz[v] += c0[v] * b0[v] - d0[v] * a0[v] - c1[v] * b1[v] + d1[v] * a1[v]


@fast
def product(re, im, columns, n_wires, lanes):
    """Write the product state of the wires' own (n, 4, V): real parts of both amplitudes, then imaginary ones."""
    for v in range(lanes):
        re[v], im[v] = columns[0, 0, v], columns[0, 2, v]
        re[lanes + v], im[lanes + v] = columns[0, 1, v], columns[0, 3, v]
    n_amplitudes = 2
    for wire in range(1, n_wires):
        e0, f0, e1, f1 = columns[wire, 0], columns[wire, 2], columns[wire, 1], columns[wire, 3]
        for k in range(n_amplitudes - 1, -1, -1):
            s, t = re[k * lanes : (k + 1) * lanes], im[k * lanes : (k + 1) * lanes]
            r0, i0 = re[2 * k * lanes : (2 * k + 1) * lanes], im[2 * k * lanes : (2 * k + 1) * lanes]
            r1, i1 = re[(2 * k + 1) * lanes : (2 * k + 2) * lanes], im[(2 * k + 1) * lanes : (2 * k + 2) * lanes]
            for v in range(lanes):
                x, y = s[v], t[v]
                r1[v] = x * e1[v] - y * f1[v]
                i1[v] = x * f1[v] + y * e1[v]
                r0[v] = x * e0[v] - y * f0[v]
                i0[v] = x * f0[v] + y * e0[v]
        n_amplitudes *= 2


@fast
def walsh(plane, size, lanes):
    """Walsh-Hadamard transform over the amplitudes, in place, without a factor."""
    m = lanes
    while m < size:
        for h in range(0, size, 2 * m):
            a, b = plane[h : h + m], plane[h + m : h + 2 * m]
            for t in range(m):
                x, y = a[t], b[t]
                a[t] = x + y
                b[t] = x - y
        m *= 2
