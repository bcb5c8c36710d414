// One stage of an explicit method in one pass: the rate at a point, the point that it leads to, and
// the outputs there. The point may be made again from the slopes that are read anyway.
//
// Macros: SLOPES, how many are read; HERE, the rate is taken at base + sum here_j slopes_j; RATE,
// there is one; MOVE, a new point base + sum weights_j slopes_j, the last weight for the rate;
// AT_BASE, the rate is taken at the base itself; KEEP_SLOPE, KEEP_OUT, OUTPUTS, what is written.
// `out` and `slope` may be arrays that are read: a thread has read all of a neuron before.

KERNEL void __launch_bounds__(THREADS)
    stage(const __grid_constant__ Parameters p, const REAL* x, const REAL* pull, int chunks,
          const REAL* point, const REAL* base, const REAL* slopes, int64 stride, REAL* slope,
          REAL* out, int64 neurons, double* partial) {
    const Samples samples = prepare(x, pull, chunks);
#if OUTPUTS
    Sums sums;
    clear(sums);
#endif
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons here, next;
#if HERE || MOVE
        load(AT_BASE ? point : base, neurons, k, next);
#endif
#if HERE || AT_BASE
        copy(next, here);
#elif RATE
        load(point, neurons, k, here);
#endif
#pragma unroll
        for (int j = 0; j < SLOPES; ++j) {
            Neurons read;
            load(slopes + j * stride, neurons, k, read);
#if HERE
            add(p.here[j], read, here);
#endif
            add(p.weights[j], read, next);
        }
#if RATE
        Neurons rate;
        rate_at(p, samples, here, rate);
#if MOVE
        add(p.weights[SLOPES], rate, next);
#endif
#if KEEP_SLOPE
        if (live) store(rate, slope, neurons, k);
#endif
#endif
#if KEEP_OUT
        if (live) store(next, out, neurons, k);
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
