// Stages that keep a fixed number of states, however many they are; see
// flowsim.kernels.interface.FlowKernels.advance_registers and advance_recurrence.
//
// The weights hold the factors. What has the base in it is taken from it first: the rest adds up to
// the base, and by rounding to something else. With `fresh` the memory is written and not read.

KERNEL void __launch_bounds__(THREADS)
    registers(const __grid_constant__ Parameters p, const REAL* x, const REAL* pull, int chunks,
              REAL* theta, REAL* memory, const REAL* base, REAL* error, int fresh, int64 neurons,
              double* partial) {
    const REAL delta = p.weights[0], gamma1 = p.weights[1], gamma2 = p.weights[2];
    const REAL beta = p.weights[3], error_weight = p.weights[4];
    const Samples samples = prepare(x, pull, chunks);
    Sums sums;
    clear_sums(sums);
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons here, origin, kept, wrong, rate;
        load(theta, neurons, k, here);
        load(base, neurons, k, origin);
        load(error, neurons, k, wrong);
        clear(kept);
        if (!fresh) load(memory, neurons, k, kept);
        rate_at(p, samples, here, rate);
        subtract(origin, here);
        add(delta, here, kept);
        add(error_weight, rate, wrong);
#pragma unroll
        for (int row = 0; row < ROWS; ++row)
#pragma unroll
            for (int v = 0; v < VECTOR; ++v)
                here[row][v] = origin[row][v] + (gamma1 * here[row][v] + gamma2 * kept[row][v] +
                                                 beta * rate[row][v]);
        if (live) {
            store(kept, memory, neurons, k);
            store(wrong, error, neurons, k);
            store(here, theta, neurons, k);
        }
        silence(live, here);
        add_outputs(p, samples, here, sums);
    }
    finish(samples, sums, partial + int64(blockIdx.x) * (CHUNKS * SAMPLES));
}

KERNEL void __launch_bounds__(THREADS)
    recurrence(const __grid_constant__ Parameters p, const REAL* x, const REAL* pull, int chunks,
               const REAL* theta, const REAL* previous, const REAL* base, const REAL* first,
               REAL* out, int64 neurons, double* partial) {
    const REAL mu = p.weights[0], nu = p.weights[1], beta = p.weights[2], delta = p.weights[3];
    const Samples samples = prepare(x, pull, chunks);
    Sums sums;
    clear_sums(sums);
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons here, origin, past, slope, rate;
        load(theta, neurons, k, here);
        load(base, neurons, k, origin);
        load(previous, neurons, k, past);
        load(first, neurons, k, slope);
        rate_at(p, samples, here, rate);
#pragma unroll
        for (int row = 0; row < ROWS; ++row)
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) {
                const REAL from = origin[row][v];
                here[row][v] = from + (mu * (here[row][v] - from) + nu * (past[row][v] - from) +
                                       beta * rate[row][v] + delta * slope[row][v]);
            }
        if (live) store(here, out, neurons, k);
        silence(live, here);
        add_outputs(p, samples, here, sums);
    }
    finish(samples, sums, partial + int64(blockIdx.x) * (CHUNKS * SAMPLES));
}
