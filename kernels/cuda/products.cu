// What else passes over few inputs find: derivatives of the outputs along a slope, and the neurons
// that are active everywhere and nowhere.

KERNEL void __launch_bounds__(THREADS)
    tangent(const __grid_constant__ Parameters p, const REAL* x, int chunks, const REAL* theta,
            const REAL* direction, int64 neurons, double* partial) {
    const Samples samples = prepare(x, nullptr, chunks);
    Sums sums;
    clear_sums(sums);
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons at, along;
        load(theta, neurons, k, at);
        load(direction, neurons, k, along);
        silence(live, at);
        silence(live, along);
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
            CHUNK_BEGINS
#pragma unroll
            for (int i = 0; i < SAMPLES; ++i) {
                REAL total = 0;
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) {
                    REAL value, derivative;
                    activation(p.scale * PREACTIVATION(at, i, v), value, derivative);
                    // The value over the scale; the derivative has it from the chain rule.
                    total += along[0][v] * value +
                             p.scale * at[0][v] * derivative * PREACTIVATION(along, i, v);
                }
                SAMPLE_ENDS(0)
            }
            CHUNK_ENDS(0)
        }
    }
    finish(samples, sums, partial + int64(blockIdx.x) * (CHUNKS * SAMPLES));
}

KERNEL void __launch_bounds__(THREADS)
    activity(const __grid_constant__ Parameters p, const REAL* x, int chunks, int n_samples,
             const REAL* theta, int64 neurons, double* partial) {
    const Samples samples = prepare(x, nullptr, chunks);
    double counts[2] = {0.0, 0.0};  // of neurons: whole numbers, exact
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons at;
        load(theta, neurons, k, at);
        int active[VECTOR];
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) active[v] = 0;
        for (int chunk = 0; chunk < CHUNKS; ++chunk) {
#pragma unroll
            for (int i = 0; i < SAMPLES; ++i)
#pragma unroll
                for (int v = 0; v < VECTOR; ++v) active[v] += PREACTIVATION(at, i, v) > 0;
        }
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) {
            counts[0] += live && active[v] == n_samples;
            counts[1] += live && active[v] == 0;
        }
    }
    add_block(counts, partial + 2 * int64(blockIdx.x));
}
