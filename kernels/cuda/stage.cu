// One stage of an explicit method in one pass: the rate at a point, the point that it leads to, and
// the outputs there. The point may be made again from the slopes that are read anyway.
//
// Macros: SLOPES, how many are read; HERE, the rate is taken at base + sum here_j slopes_j; RATE,
// there is one; MOVE, a new point base + sum weights_j slopes_j, the last weight for the rate;
// BEGIN, a second sum of the same slopes into `other`; OUTPUTS, of the new point. What is to be
// written nowhere has no address. `out` and `slope` may be arrays that are read: a thread has read
// all of a neuron before.

KERNEL void __launch_bounds__(THREADS)
    stage(const __grid_constant__ Parameters p, const REAL* x, const REAL* pull, int chunks,
          const REAL* point, const REAL* base, const REAL* slopes, int64 stride, REAL* slope,
          REAL* out, REAL* other, int64 neurons, double* partial) {
    const Samples samples = prepare(x, pull, chunks);
#if OUTPUTS
    Sums sums;
    clear_sums(sums);
#endif
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons here, next;
#if HERE || MOVE
        load(base, neurons, k, next);
        copy(next, here);
#endif
#if RATE && !HERE
        if (!MOVE || point != base) load(point, neurons, k, here);
#endif
#if BEGIN
        Neurons begun;
        clear(begun);
#endif
#pragma unroll
        for (int j = 0; j < SLOPES; ++j) {
            Neurons read;
            load(slopes + j * stride, neurons, k, read);
#if HERE
            add(p.here[j], read, here);
#endif
            add(p.weights[j], read, next);
#if BEGIN
            add(p.others[j], read, begun);
#endif
        }
#if RATE
        Neurons rate;
        rate_at(p, samples, here, rate);
#if MOVE
        add(p.weights[SLOPES], rate, next);
#endif
        if (live && slope) store(rate, slope, neurons, k);
#if BEGIN
        add(p.others[SLOPES], rate, begun);
        if (live) store(begun, other, neurons, k);
#endif
#endif
#if MOVE
        if (live && out) store(next, out, neurons, k);
#endif
#if OUTPUTS
        silence(live, next);
        add_outputs(p, samples, next, sums);
#endif
    }
#if OUTPUTS
    finish(samples, sums, partial + int64(blockIdx.x) * (CHUNKS * SAMPLES));
#endif
}
