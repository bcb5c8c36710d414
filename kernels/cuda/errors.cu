// The end of a step of an embedded method in one pass: the rate at the new point into the last
// slope, what each of ERRORS embedded solutions is off, the outputs without that, and squares.
//
// Macro SLOPES: those that are read; the rate is one more. partial (blocks, ERRORS n + 2 ERRORS + 2):
// the outputs, and sums of squares of each layer of the errors and, last, of the point.

KERNEL void __launch_bounds__(THREADS)
    errors(const __grid_constant__ Parameters p, const REAL* x, const REAL* pull, int chunks,
           const REAL* point, const REAL* slopes, int64 stride, REAL* slope, int64 neurons,
           double* partial) {
    const Samples samples = prepare(x, pull, chunks);
    Sums sums;
    clear_sums(sums);
    double squares[2 * ERRORS + 2];
#pragma unroll
    for (int i = 0; i < 2 * ERRORS + 2; ++i) squares[i] = 0.0;
    FOR_NEURONS {
        int64 k;
        const bool live = place(start, neurons, k);
        Neurons here, rate, wrong[ERRORS];
        load(point, neurons, k, here);
#pragma unroll
        for (int e = 0; e < ERRORS; ++e) clear(wrong[e]);
#pragma unroll
        for (int j = 0; j < SLOPES; ++j) {
            Neurons read;
            load(slopes + j * stride, neurons, k, read);
#pragma unroll
            for (int e = 0; e < ERRORS; ++e) add(p.weights[e * (SLOPES + 1) + j], read, wrong[e]);
        }
        rate_at(p, samples, here, rate);
        if (live) store(rate, slope, neurons, k);
#pragma unroll
        for (int e = 0; e < ERRORS; ++e)
            add(p.weights[e * (SLOPES + 1) + SLOPES], rate, wrong[e]);
        if (live) {
#pragma unroll
            for (int e = 0; e < ERRORS; ++e) add_squares(wrong[e], squares + 2 * e);
            add_squares(here, squares + 2 * ERRORS);
        }
#pragma unroll
        for (int e = 0; e < ERRORS; ++e) {
            Neurons other;
            copy(here, other);
            subtract(wrong[e], other);
            silence(live, other);
            add_outputs(p, samples, other, sums, e);
        }
    }
    const int outputs = ERRORS * CHUNKS * SAMPLES;
    partial += int64(blockIdx.x) * (outputs + 2 * ERRORS + 2);
    finish(samples, sums, partial);
    add_block(squares, partial + outputs);
}
